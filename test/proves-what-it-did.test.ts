import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { forgeCertificate } from './support/tls-peer.ts'
import { until } from './support/until.ts'

/** The log proves what the edge did: after kills at any moment, to somebody who has only an export, against changes of
 *  any kind; and it is handed to a receiver that is not always there. */

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))
const SECRET = 'what the receiver knows of the edge'
const KILLS = 3

let edge: EdgeProcess
let echo: TcpService
let admin: string
let service: ConnectedService
let receiver: http.Server
let isReceiverWell = false
/** Lines that the receiver has accepted. */
const accepted: string[] = []
let keyFile: string
const folder = makeTempFolder('audit')

before(async () => {
  receiver = http.createServer(async (request, response) => {
    const body = await text(request).catch(() => undefined)
    if (body === undefined) return // the edge was killed in the middle of it
    if (!isReceiverWell) return void response.writeHead(503).end()
    const [, seconds, signature] =
      /^t=(\d+),v1=(\w+)$/.exec(String(request.headers['postern-signature'])) ?? []
    assert.equal(createHmac('sha256', SECRET).update(`${seconds}.${body}`).digest('hex'), signature)
    accepted.push(...body.trimEnd().split('\n'))
    response.writeHead(204).end()
  })
  await once(receiver.listen(0, '127.0.0.1'), 'listening')
  const secretFile = path.join(folder, 'secret')
  writeFileSync(secretFile, SECRET, { mode: 0o600 })
  const { port } = receiver.address() as AddressInfo
  const sinks = [{ webhook: `http://127.0.0.1:${port}/in`, secret_file: secretFile }]
  edge = await startEdge({ keepsPort: true, config: { audit: { checkpoint_records: 10, sinks } } })
  echo = await startEcho()
  admin = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: admin, port: echo.port })
  const key = await new Program(
    process.execPath,
    [POSTERN_EDGE, 'audit', 'key', '--config', edge.configFile],
    {
      env: process.env,
      stdin: '',
    },
  ).ended
  keyFile = path.join(folder, 'key.txt')
  writeFileSync(keyFile, key.stdout)
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
  receiver?.close()
})

const run = (args: readonly string[], stdin = '') => runPostern(args, { home: admin, stdin })
const reach = () => run(['client', 'tls', '--host', service.host], 'x'.repeat(1_000))

async function exportLog(): Promise<string[]> {
  const { code, stdout, stderr } = await run(['audit', 'export'])
  assert.equal(code, 0, stderr)
  return stdout.trimEnd().split('\n')
}

/** Of a person who has the file and the key, and no edge: `home` is empty. */
async function verify(lines: readonly string[], ...args: string[]) {
  const file = path.join(folder, 'export.jsonl')
  writeFileSync(file, `${lines.join('\n')}\n`)
  const home = makeTempFolder('home')
  const result = await runPostern(['audit', 'verify', file, '--key', keyFile, '--json', ...args], { home })
  return { code: result.code, stderr: result.stderr, answer: JSON.parse(result.stdout) }
}

test('killed at any moment under load, it goes on with its chain', async () => {
  for (let kill = 0; kill < KILLS; kill++) {
    const reached = [reach(), reach()]
    if (kill > 0) await Promise.any(reached)
    await edge.kill9()
    await Promise.allSettled(reached)
    const { dataDir, port } = edge
    const { audit } = JSON.parse(readFileSync(edge.configFile, 'utf8'))
    edge = await startEdge({ dataDir, port, config: { audit } })
    const { code, stderr, answer } = await verify(await exportLog())
    assert.equal(code, 0, stderr)
    assert.equal(answer.chains.length, 1)
  }
  await until('a flow after the last kill', async () => (await reach()).code === 0)
})

test('names the first record that was changed, removed, moved, put in or cut off, without an edge', async () => {
  // first the checkpoints: one that is newer than the export would rightly accuse it
  const checkpoints = path.join(folder, 'kept.jsonl')
  const listed = await run(['audit', 'list', '--type', 'audit.checkpoint', '--json'])
  writeFileSync(checkpoints, listed.stdout)
  const lines = await exportLog()
  const whole = await verify(lines, '--checkpoint', checkpoints)
  assert.deepEqual([whole.code, whole.answer.verified], [0, true], whole.stderr)
  assert.ok(lines.length > 15)

  const broken = async (changed: readonly string[], line: number | undefined, ...args: string[]) => {
    const { code, stderr, answer } = await verify(changed, ...args)
    assert.deepEqual([code, answer.verified, answer.code, answer.line], [1, false, 'AUDIT_BROKEN', line])
    assert.match(stderr, /AUDIT_BROKEN/)
  }
  const at = 6
  const flipped = lines.with(
    at,
    lines[at]!.replace(/"at":(\d+)/, (_, time) => `"at":${BigInt(time) ^ 1n}`),
  )
  assert.notEqual(flipped[at], lines[at])
  await broken(flipped, at + 1)
  await broken(lines.toSpliced(at, 1), at + 1)
  await broken(lines.toSpliced(at, 0, lines[2]!), at + 1)
  await broken(lines.toSpliced(at, 2, lines[at + 1]!, lines[at]!), at + 1)
  await broken(lines.slice(0, 4), undefined, '--checkpoint', checkpoints)
  const table = await runPostern(['audit', 'verify', '-'], {
    home: makeTempFolder('home'),
    stdin: lines.join('\n'),
  })
  assert.match(table.stdout, /^verified: \d+ records/)
})

test('follows what comes, and ends with Ctrl-C as if nothing were', async () => {
  await using following = spawnPostern(['audit', 'list', '--follow', '--json', '--limit', '1'], {
    home: admin,
    stdin: '',
  })
  await until('it has begun', () => following.logs().includes('"seq"'))
  const { code, stderr } = await reach()
  assert.equal(code, 0, stderr)
  await until('the flow is told', () => /"type":"flow\.closed"/.test(following.logs()))
  const { code: ended, stderr: said } = await following.stop('SIGINT')
  assert.deepEqual([ended, said], [0, ''])
  const reads = await run(['audit', 'list', '--type', 'audit.read', '--json'])
  const lines = reads.stdout.trimEnd().split('\n')
  assert.ok(lines.length >= 1 && lines.length < 20, 'reading is recorded, not every time')
})

test('a receiver that was away gets all of it, in order', async () => {
  assert.deepEqual(accepted, [])
  isReceiverWell = true
  const lines = await exportLog()
  const last = JSON.parse(lines.at(-1)!).position
  await until('everything has arrived', () => accepted.some((line) => JSON.parse(line).position >= last))
  const first = JSON.parse(accepted[0]!).position
  const once = [...new Set(accepted)].filter((line) => JSON.parse(line).position <= last)
  assert.deepEqual(
    once,
    lines.filter((line) => JSON.parse(line).position >= first),
  )
  assert.equal(first, 1)
})

test('is handed to nobody whose certificate is not to be trusted, whatever Node was told', async () => {
  let requests = 0
  const impostor = https.createServer(
    forgeCertificate({ subjectAltName: 'DNS:localhost', usage: 'serverAuth' }),
    (_, response) => {
      requests++
      response.writeHead(204).end()
    },
  )
  await once(impostor.listen(0, '127.0.0.1'), 'listening')
  try {
    const { port } = impostor.address() as AddressInfo
    const sinks = [{ webhook: `https://localhost:${port}/in`, secret_file: path.join(folder, 'secret') }]
    const env = { NODE_TLS_REJECT_UNAUTHORIZED: '0' }
    await using misled = await startEdge({ env, config: { audit: { sinks } } })
    await makePerson(misled, 'operator@mycorp.com')
    await until('a try', () => misled.logs().includes('audit.sink_failed'))
    assert.match(misled.logs(), /UNABLE_TO_VERIFY_LEAF_SIGNATURE|unable to verify the first certificate/)
    assert.match(misled.program.stderr, /NODE_TLS_REJECT_UNAUTHORIZED is set; certificates are verified/)
    assert.equal(requests, 0)
  } finally {
    impostor.close()
  }
})
