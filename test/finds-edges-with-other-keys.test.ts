import assert from 'node:assert/strict'
import { cpSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { newDatabase } from '../packages/edge/test/postgres.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** Edges on one PostgreSQL must have the same keys. One that comes with others does not start; what goes apart while they
 *  run is said by both, once, and in good time. */

const COPIED = ['ca', 'login-keys.json']

function copyKeys(from: EdgeProcess, dataDir: string, names = COPIED): void {
  for (const name of names) {
    cpSync(path.join(from.dataDir, name), path.join(dataDir, name), { recursive: true })
  }
}

function refusal(dataDir: string, config: object): Promise<Error> {
  return startEdge({ dataDir, config: { ...config } }).then(
    async (edge) => {
      await edge.stop()
      throw new Error(`it has started\n${edge.logs()}`)
    },
    (error: Error) => error,
  )
}

interface Status {
  compared: number
  differing: { edge: string; kinds: string[]; from: number; isPresent: boolean }[]
}

async function keysOf(edge: EdgeProcess): Promise<Status> {
  const { code, stdout, stderr } = await runPosternEdge(edge, ['status', '--json'])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout).keys
}

function countLogged(edge: EdgeProcess, event: string): number {
  return edge.logs().split(`"${event}"`).length - 1
}

async function rotate(edge: EdgeProcess, kind: string, signsIn: string): Promise<void> {
  const { code, stderr } = await runPosternEdge(edge, ['ca', 'rotate', '--kind', kind, '--signs-in', signsIn])
  assert.equal(code, 0, stderr)
}

test('an edge with other keys than one that runs does not start; with the same ones it does', async () => {
  const config = { store: await newDatabase(), metrics: METRICS_ON }
  await using first = await startEdge({ config })
  assert.deepEqual(await keysOf(first), { compared: 0, differing: [] })
  const dataDir = makeTempFolder('edge')

  const unlike = await refusal(dataDir, config)
  assert.match(unlike.message, /EDGE_KEYS_DIFFER/)
  assert.match(unlike.message, new RegExp(`process ${first.pid}\\b`), 'it names the edge that runs')
  for (const kind of ['client', 'connector', 'workload', 'edge', 'ssh-user', 'ssh-host', 'flow-identity']) {
    assert.ok(unlike.message.includes(kind), kind)
  }
  assert.match(unlike.message, /copy ca and login-keys\.json/)

  copyKeys(first, dataDir, ['ca'])
  assert.match((await refusal(dataDir, config)).message, /has other keys for: login\b/)

  copyKeys(first, dataDir)
  await using second = await startEdge({ dataDir, config })
  assert.deepEqual(await keysOf(second), { compared: 1, differing: [] })
  await until('the first sees it', async () => (await keysOf(first)).compared === 1)
  assert.equal((await readMetrics(first)).get('postern_edges_with_other_keys'), 0)
  const shown = await runPosternEdge(first, ['status'])
  assert.match(shown.stdout, /^keys +as at 1 other edges on this store$/m)

  await second.stop()
  await until('its end is known', async () => (await keysOf(first)).compared === 0)
  assert.equal(countLogged(first, 'fleet.keys_differ'), 0)
})

test('a new CA that was not copied is said before it signs and when it does, by both, until it is copied', async () => {
  const config = { store: await newDatabase(), metrics: METRICS_ON }
  await using first = await startEdge({ config })
  const dataDir = makeTempFolder('edge')
  copyKeys(first, dataDir)
  await using second = await startEdge({ dataDir, config })

  await rotate(first, 'workload', '1h')
  for (const edge of [first, second]) {
    await until('it is said in time', () => countLogged(edge, 'fleet.keys_will_differ') === 1)
    const [differing] = (await keysOf(edge)).differing
    assert.deepEqual([differing?.kinds, differing?.isPresent], [['workload'], false])
    assert.equal((await readMetrics(edge)).get('postern_edges_with_other_keys'), 0)
  }
  // one that has the old files is one of them still
  const third = makeTempFolder('edge')
  copyKeys(second, third)
  const late = await startEdge({ dataDir: third, config })
  await late.stop()

  await rotate(first, 'client', '1s')
  for (const edge of [first, second]) {
    await until('it is said', () => countLogged(edge, 'fleet.keys_differ') === 1)
    assert.match(
      edge.logs(),
      /"fleet.keys_differ".*"code":"EDGE_KEYS_DIFFER"|"code":"EDGE_KEYS_DIFFER".*"fleet.keys_differ"/,
    )
    assert.equal((await readMetrics(edge)).get('postern_edges_with_other_keys'), 1)
    const status = await until('the file says so', async () => {
      const { stdout } = await runPosternEdge(edge, ['status'])
      return stdout.includes('EDGE_KEYS_DIFFER') ? stdout : undefined
    })
    assert.match(status, /^keys +not as at .*, process \d+ since .*: client \(EDGE_KEYS_DIFFER\)$/m)
  }
  assert.match((await refusal(third, config)).message, /has other keys for: client\b/)

  copyKeys(first, dataDir)
  for (const edge of [first, second]) {
    await until('they agree', async () => (await keysOf(edge)).differing.length === 0)
    assert.equal((await readMetrics(edge)).get('postern_edges_with_other_keys'), 0)
    assert.equal(countLogged(edge, 'fleet.keys_agree'), 1)
    assert.equal(countLogged(edge, 'fleet.keys_differ'), 1, 'once, not at each look')
  }
})
