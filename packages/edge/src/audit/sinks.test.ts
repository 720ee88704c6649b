import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, it } from 'node:test'
import { ExportVerifier } from '@postern/shared/audit/verify'
import type { AuditSink } from '../config/config.ts'
import { testChain } from '../store/audit-suite.ts'
import { openStore, type Store } from '../store/open.ts'
import { openAuditLog } from './record.ts'
import { Sinks } from './sinks.ts'

const SECRET = 'a secret that both ends know'
const TIMINGS = { timeoutMs: 2_000, firstRetryMs: 10, maxRetryMs: 20 }

/** The log with one sink, as the edge puts them together. */
async function openSunk(store: Store, sink: AuditSink) {
  const clock = Date.now
  const failed = Promise.withResolvers<void>()
  const log = { debug() {}, info() {}, warn: () => failed.resolve(), error() {} }
  const sinks = new Sinks([sink], { db: store.db, chain: 'chn_test', log, clock, timings: TIMINGS })
  await sinks.start()
  const audit = openAuditLog(store.db, {
    chain: testChain('chn_test'),
    onAppended: ({ position }) => sinks.wake(position),
  })
  const record = (label: string) =>
    audit.record({
      type: 'service.deleted',
      serviceId: 'svc_1',
      label,
      name: label,
      identityId: 'i',
      email: 'e',
    })
  const close = async () => {
    await audit.close()
    await sinks[Symbol.asyncDispose]()
  }
  return { sinks, record, close, failed: failed.promise, [Symbol.asyncDispose]: close }
}

interface Received {
  headers: http.IncomingHttpHeaders
  body: string
}

/** A receiver that answers as it is told, one answer per request, and then with 204. */
async function openReceiver(answers: (number | 'nothing' | 'cut')[]) {
  const received: Received[] = []
  const accepted: string[] = []
  const arrivals = new EventTarget()
  const server = http.createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    received.push({ headers: request.headers, body })
    const answer = answers.shift() ?? 204
    if (answer === 'cut') request.socket.destroy()
    else if (answer !== 'nothing') response.writeHead(answer).end('and a word')
    if (answer === 204) accepted.push(...body.trimEnd().split('\n'))
    arrivals.dispatchEvent(new Event('arrival'))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return {
    received,
    accepted,
    url: new URL(`http://127.0.0.1:${port}/in`),
    async until(isThere: () => boolean) {
      while (!isThere())
        await new Promise((resolve) => arrivals.addEventListener('arrival', resolve, { once: true }))
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const labelsOf = (lines: readonly string[]) =>
  lines.map((line) => JSON.parse(line).event.label).filter((label) => label !== undefined)

describe('a webhook', () => {
  it('that fails, redirects, says nothing and is cut off gets everything, in order, once it is back', async () => {
    await using store = await openStore('sqlite::memory:')
    await using receiver = await openReceiver([500, 302, 'nothing', 'cut'])
    await using log = await openSunk(store, { kind: 'webhook', url: receiver.url, secret: SECRET })
    await log.record('one')
    await receiver.until(() => receiver.received.length >= 1)
    await log.record('two') // and nobody waits for the receiver
    assert.ok(log.sinks.lags()[0]! > 0)
    await receiver.until(() => labelsOf(receiver.accepted).includes('two'))
    assert.ok(receiver.received.length >= 5)
    assert.deepEqual(labelsOf(receiver.accepted), ['one', 'two'])
    const verifier = new ExportVerifier()
    for (const line of receiver.accepted) verifier.add(line)
    assert.equal(verifier.finish().chains[0]?.from, 1)
  })

  it('can tell who sent a batch, and when, and which', async () => {
    await using store = await openStore('sqlite::memory:')
    await using receiver = await openReceiver([])
    await using log = await openSunk(store, { kind: 'webhook', url: receiver.url, secret: SECRET })
    await log.record('one')
    await receiver.until(() => receiver.accepted.length > 0)
    const { headers, body } = receiver.received[0]!
    const [, seconds, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(headers['postern-signature']))!
    assert.equal(createHmac('sha256', SECRET).update(`${seconds}.${body}`).digest('hex'), signature)
    assert.ok(Math.abs(Number(seconds) * 1_000 - Date.now()) < 60_000)
    assert.match(String(headers['postern-delivery']), /^chn_test:1-\d+$/)
    assert.equal(headers['content-type'], 'application/x-ndjson')
  })

  it('goes on after a restart where it was, and a new one begins with what is new', async () => {
    await using store = await openStore('sqlite::memory:')
    await using receiver = await openReceiver([])
    const sink: AuditSink = { kind: 'webhook', url: receiver.url, secret: SECRET }
    const first = await openSunk(store, sink)
    await first.record('one')
    await receiver.until(() => labelsOf(receiver.accepted).length === 1)
    await first.close()
    await using elsewhere = await openReceiver([])
    {
      await using second = await openSunk(store, { ...sink, url: elsewhere.url })
      await second.record('two')
      await elsewhere.until(() => labelsOf(elsewhere.accepted).length === 1)
    }
    await using third = await openSunk(store, sink)
    await third.record('three')
    await receiver.until(() => labelsOf(receiver.accepted).includes('three'))
    assert.deepEqual(labelsOf(elsewhere.accepted), ['two'])
    assert.deepEqual([...new Set(labelsOf(receiver.accepted))], ['one', 'two', 'three'])
  })

  it('gets a batch again when its acceptance could not be noted', async () => {
    await using store = await openStore('sqlite::memory:')
    await using receiver = await openReceiver([])
    await using log = await openSunk(store, { kind: 'webhook', url: receiver.url, secret: SECRET })
    const { updateTable } = store.db
    store.db.updateTable = (() => {
      store.db.updateTable = updateTable
      throw new Error('disk full')
    }) as typeof updateTable
    await log.record('one')
    await receiver.until(() => labelsOf(receiver.accepted).length >= 2)
    assert.deepEqual(labelsOf(receiver.accepted).slice(0, 2), ['one', 'one'])
  })
})

describe('a syslog receiver', () => {
  it('that is not there yet gets the batch later, with lengths that count bytes', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'postern-syslog-'))
    const file = path.join(folder, 'log.sock')
    const whole = Promise.withResolvers<Buffer>()
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const chunks: Buffer[] = []
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => chunks.push(chunk))
      socket.on('end', () => {
        socket.end()
        if (Buffer.concat(chunks).includes('ünïcode')) whole.resolve(Buffer.concat(chunks))
      })
    })
    {
      await using store = await openStore('sqlite::memory:')
      await using log = await openSunk(store, { kind: 'syslog', address: { path: file } })
      await log.record('ünïcode')
      await log.failed
      await once(server.listen(file), 'listening')
      let rest = await whole.promise
      const lines: string[] = []
      while (rest.length > 0) {
        const [head, length] = /^(\d+) /.exec(rest.toString('latin1'))!
        const message = rest.subarray(head.length, head.length + Number(length)).toString()
        const [, line] = /^<110>1 \d{4}-\S+Z \S+ postern-edge \d+ [\w.]+ - (\{.*\})$/.exec(message)!
        lines.push(line!)
        rest = rest.subarray(head.length + Number(length))
      }
      assert.deepEqual(labelsOf(lines), ['ünïcode'])
    }
    server.close()
    rmSync(folder, { recursive: true })
  })
})
