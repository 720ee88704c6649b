import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import {
  patternChunks,
  patternHash,
  startClosesFirst,
  startEcho,
  startLateAnswer,
  startSink,
  startSource,
} from './support/tcp-services.ts'
import { AT_ONCE_MS, within } from './support/until.ts'

const MIB = 1024 * 1024

/** The whole way to one service. */
async function path(service: { port: number }) {
  await using cleanup = new AsyncDisposableStack()
  const edge = cleanup.use(await startEdge())
  const home = await makePerson(edge, 'operator@mycorp.com')
  const connected = cleanup.use(await connectService({ home, port: service.port }))
  const way = cleanup.move()
  const args = ['client', 'tls', '--host', connected.host]
  return { home, args, [Symbol.asyncDispose]: () => way.disposeAsync() }
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

test('a service that waits for the end of file, pauses 2 s and answers 64 MiB: all of it arrives', async () => {
  await using service = await startLateAnswer({ pauseMs: 2_000, answerBytes: 64 * MIB })
  await using way = await path(service)
  const result = await runPostern(way.args, { home: way.home, stdin: 'hello' })
  assert.equal(result.code, 0, result.stderr)
  assert.equal(result.stdoutBytes.length, 64 * MIB)
  assert.equal(sha256(result.stdoutBytes), patternHash(64 * MIB))
  assert.equal((await service.connection()).ending, 'end')
  assert.equal((await service.connection()).bytesRead, 5)
  assert.equal(result.stderr, '')
})

test('a service that closes first: the client exits at once with stdin still open', async () => {
  await using service = await startClosesFirst('goodbye')
  await using way = await path(service)
  await runPostern(way.args, { home: way.home, stdin: '' }) // has the certificate ready
  const client = spawnPostern(way.args, { home: way.home })
  await client.matches(/goodbye/) // from here on: how long this machine takes to start it says nothing
  const result = await within('the client exits', client.ended, AT_ONCE_MS)
  assert.equal(result.code, 0, result.stderr)
  assert.equal(result.stdout, 'goodbye')
  assert.equal(client.child.stdin.writableEnded, false)
})

test('64 MiB up, 64 MiB down and both at once: exact bytes', async () => {
  await using sink = await startSink()
  await using way = await path(sink)
  const up = spawnPostern(way.args, { home: way.home })
  for (const chunk of patternChunks(64 * MIB)) {
    if (!up.child.stdin.write(chunk)) await once(up.child.stdin, 'drain')
  }
  up.child.stdin.end()
  const sent = await up.ended
  assert.equal(sent.code, 0, sent.stderr)
  const received = await sink.connection()
  assert.equal(received.bytesRead, 64 * MIB)
  assert.equal(received.hash(), patternHash(64 * MIB))

  await using source = await startSource(64 * MIB)
  await using echo = await startEcho()
  await using down = await connectService({ home: way.home, port: source.port, name: 'source' })
  await using both = await connectService({ home: way.home, port: echo.port, name: 'echo' })
  const got = await runPostern(['client', 'tls', '--host', down.host], { home: way.home })
  assert.equal(sha256(got.stdoutBytes), patternHash(64 * MIB))
  const input = Buffer.concat([...patternChunks(32 * MIB)])
  const echoed = await runPostern(['client', 'tls', '--host', both.host], { home: way.home, stdin: input })
  assert.equal(echoed.code, 0, echoed.stderr)
  assert.equal(sha256(echoed.stdoutBytes), patternHash(32 * MIB))
})

test('an empty flow is a clean flow', async () => {
  await using service = await startSink()
  await using way = await path(service)
  const result = await runPostern(way.args, { home: way.home, stdin: '' })
  assert.equal(result.code, 0, result.stderr)
  assert.equal(result.stdout, '')
  assert.equal((await service.connection()).ending, 'end')
})
