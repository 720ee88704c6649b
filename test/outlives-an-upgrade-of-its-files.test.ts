import assert from 'node:assert/strict'
import { cpSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { runPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { attempt, clientCertificateOf } from './support/tls-peer.ts'
import { until } from './support/until.ts'

/** An upgrade replaces the files under an edge that runs. Its threads start later, or again: they are of the build that
 *  the edge is of, or a record could be believed to be on disk that is not. */

const EDGE = fileURLToPath(new URL('../packages/edge/', import.meta.url))
/** Told by a signal, ends the threads of the process, as a defect of theirs would. */
const BREAK_THREADS = `
  import { isMainThread } from 'node:worker_threads'
  const threads = new Set()
  process.on('worker', (thread) => {
    threads.add(thread)
    thread.once('exit', () => threads.delete(thread))
  })
  if (isMainThread) process.on('SIGUSR2', async () => {
    const ended = await Promise.all([...threads].map((thread) => thread.terminate()))
    process.stderr.write(\`threads ended: \${ended.length}\\n\`)
  })`

test('an edge whose files are replaced and whose threads break goes on as what it was', async () => {
  const folder = makeTempFolder('edge-build')
  for (const part of ['package.json', 'bin', 'dist']) {
    cpSync(path.join(EDGE, part), path.join(folder, part), { recursive: true })
  }
  const preload = path.join(folder, 'break-threads.mjs')
  writeFileSync(preload, BREAK_THREADS)
  await using edge = await startEdge({
    program: path.join(folder, 'bin', 'postern-edge.js'),
    env: { NODE_OPTIONS: `--import=${preload}` },
  })
  await using echo = await startEcho()
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using service = await connectService({ home, port: echo.port })
  const first = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'x' })
  assert.equal(first.code, 0, first.stderr)
  const identity = clientCertificateOf(home, service.label)
  using flow = new HeldFlow(edge, service.host, identity)
  await flow.echo('before')

  assert.ok(replaceWithAnotherBuild(path.join(folder, 'dist')) > 3)
  await breakThreads(edge)

  await flow.echo('what runs goes on')
  await until('the store is written again', async () => {
    const { code } = await attempt(edge, { serverName: service.host, alpn: 'postern/1', identity })
    return code === undefined
  })
  const other = await makePerson(edge, 'dev@mycorp.com') // a certificate of theirs starts the other thread
  const again = await runPostern(['client', 'tls', '--host', service.host], { home: other, stdin: 'y' })
  assert.deepEqual([again.code, again.stdout], [0, 'y'], again.stderr)
  const log = await runPostern(['audit', 'list', '--type', 'flow.decided', '--json'], { home })
  assert.match(log.stdout, /"email":\s*"dev@mycorp\.com"/, log.stderr)
  assert.doesNotMatch(edge.logs(), /another build/)
})

/** A build of which each file fails where it is loaded. @returns how many files */
function replaceWithAnotherBuild(dist: string): number {
  const files = readdirSync(dist, { recursive: true, encoding: 'utf8' })
    .map((name) => path.join(dist, name))
    .filter((file) => file.endsWith('.js') && statSync(file).isFile())
  for (const file of files) writeFileSync(file, `throw new Error('another build')`)
  return files.length
}

async function breakThreads(edge: EdgeProcess): Promise<void> {
  process.kill(edge.pid, 'SIGUSR2')
  await until('two threads have ended', () => edge.logs().includes('threads ended: 2'))
}
