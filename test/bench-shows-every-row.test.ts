import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Results } from '../bench/results.ts'
import { Program } from '../demo/program.ts'
import { makeTempFolder } from './support/temp-folder.ts'

const BENCH = fileURLToPath(new URL('../bench/run.ts', import.meta.url))
const PAGE = fileURLToPath(new URL('../docs/performance.md', import.meta.url))

function bench(args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
  return new Program(process.execPath, [BENCH, ...args], { env, stdin: '' }).ended
}

test('two rows in their smallest size: the table, the JSON and the chart; the page stays', async () => {
  const page = readFileSync(PAGE, 'utf8')
  const out = makeTempFolder('bench')
  const { code, stdout, stderr } = await bench(['--quick', '--out', out, 'p1', 'P4'])
  assert.equal(code, 0, stderr)
  assert.match(stderr, /round 1 of 1/)
  const { rows }: Results = JSON.parse(readFileSync(path.join(out, 'performance.json'), 'utf8'))
  assert.deepEqual(
    rows.map(({ id, quick, rounds }) => [id, quick, rounds]),
    [
      ['P1', true, 1],
      ['P4', true, 1],
    ],
  )
  for (const { figures, goals, machine, title } of rows) {
    assert.ok(figures.length > 0 && goals.length > 0 && machine.cores > 0)
    for (const { name, median, min, max, values } of figures) {
      assert.ok(stdout.includes(name), name)
      assert.ok(Number.isFinite(median) && min <= median && median <= max && values.length === 1, name)
    }
    for (const goal of goals) assert.ok(Number.isFinite(goal.value) && typeof goal.reached === 'boolean')
    assert.ok(stdout.includes(title))
  }
  const throughput = rows[0]!.figures.map(({ name }) => name)
  for (const chain of ['postern', 'bare Node', 'stunnel', 'ssh']) {
    assert.ok(throughput.includes(`${chain}, 1 flow, up`) && throughput.includes(`${chain}, 8 flows, down`))
  }
  assert.ok(rows.every(({ figures }) => figures.every(({ unit, median }) => unit === 'KiB' || median > 0)))
  assert.match(
    readFileSync(path.join(out, 'performance.svg'), 'utf8'),
    /^<svg .*postern, 1 flow, up.*<\/svg>/s,
  )
  assert.equal(readFileSync(PAGE, 'utf8'), page)
})

test('an unknown row, and a program that is missing, are named; nothing is measured', async () => {
  const unknown = await bench(['P77'])
  assert.equal(unknown.code, 2)
  assert.match(unknown.stderr, /there is no row P77/)
  const missing = await bench(['P1'], { PATH: '/nowhere' })
  assert.equal(missing.code, 1)
  assert.match(missing.stderr, /apt-get install .*openssl/)
  assert.equal(missing.stdout, '')
})
