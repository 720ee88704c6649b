import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { DEBIAN_PACKAGES, missingPackages } from '../test/support/debian-packages.ts'
import { drawChart } from './chart.ts'
import { openFilesAllowed } from './processes.ts'
import { formatTable, putIntoPage } from './report.ts'
import { describeMachine, mergeIntoFile, type RowResult, toResult } from './results.ts'
import type { Row, Scale } from './row.ts'
import { throughput } from './rows/p01-throughput.ts'
import { firstByte } from './rows/p02-first-byte.ts'
import { flowSetup } from './rows/p03-flow-setup.ts'
import { memory } from './rows/p04-memory.ts'
import { revocation } from './rows/p05-revocation.ts'
import { slowReader } from './rows/p06-slow-reader.ts'
import { certificates } from './rows/p07-certificates.ts'
import { growth } from './rows/p08-growth.ts'
import { sshStart } from './rows/p09-ssh.ts'
import { reattach } from './rows/p10-reattach.ts'
import { roundTrip } from './rows/p11-round-trip.ts'

/** `npm run bench`: the product's built programs beside those that people use today, in one run. */

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const ROWS: readonly Row[] = [
  throughput,
  firstByte,
  flowSetup,
  memory,
  revocation,
  slowReader,
  certificates,
  growth,
  sshStart,
  reattach,
  roundTrip,
]
const ROUNDS = 5
/** What rows start beside Node. Nothing is installed from here. */
const PACKAGES: Readonly<Record<string, string>> = { ...DEBIAN_PACKAGES, haproxy: 'haproxy' }

const HELP = `usage: npm run bench -- [options] [ROW…]

  ROW           measure these rows only: ${ROWS.map(({ id }) => id).join(' ')}
  --rounds N    interleaved rounds of each row (default ${ROUNDS})
  --quick       tiny sizes, one round: shows that everything runs, and nothing else
  --out DIR     write performance.json and performance.svg there, and leave docs/ alone (default with
                --quick: build/bench)

Progress is on stderr, the table on stdout. Rows that were not measured keep their figures of an earlier run. Run it on
a machine that does nothing else.
`

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    out: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
  allowPositionals: true,
})

if (values.help) process.stdout.write(HELP)
else process.exitCode = await main()
// servers of the last row may linger
process.exit()

async function main(): Promise<number> {
  const wanted = positionals.map((id) => id.toUpperCase())
  const unknown = wanted.filter((id) => !ROWS.some((row) => row.id === id))
  const scale: Scale = { quick: values.quick, rounds: Number(values.rounds ?? (values.quick ? 1 : ROUNDS)) }
  if (unknown.length > 0 || !Number.isInteger(scale.rounds) || scale.rounds < 1) {
    process.stderr.write(unknown.length > 0 ? `there is no row ${unknown.join(', ')}\n\n${HELP}` : HELP)
    return 2
  }
  const rows = ROWS.filter(({ id }) => wanted.length === 0 || wanted.includes(id))
  const needs = rows.flatMap((row) => row.needs)
  const missing = missingPackages(Object.fromEntries(needs.map((program) => [program, PACKAGES[program]!])))
  if (missing.length > 0) {
    say('these Debian packages are missing; install them, or name the rows to measure:')
    say(`  sudo apt-get install -y --no-install-recommends ${missing.join(' ')}`)
    return 1
  }
  const results = await measureAll(rows, scale)
  write(results)
  process.stdout.write(`\n${formatTable(results)}`)
  return results.length === rows.length ? 0 : 1
}

/** A row that fails is told, and the others go on. */
async function measureAll(rows: readonly Row[], scale: Scale): Promise<RowResult[]> {
  const results: RowResult[] = []
  for (const row of rows) {
    const started = performance.now()
    const how = { machine: describeMachine(), ...scale }
    say(`${row.id}  ${row.title}`)
    try {
      requireOpenFiles(row)
      const measured = await row.run(scale, (line) => say(`    ${line}`))
      results.push(toResult(row, measured, how))
      say(`    ${((performance.now() - started) / 1_000).toFixed(0)} s`)
    } catch (error) {
      say(`${row.id} failed: ${error instanceof Error ? error.stack : error}`)
    }
  }
  return results
}

function requireOpenFiles({ openFiles = 0 }: Row): void {
  const allowed = openFilesAllowed()
  if (values.quick || openFiles <= allowed) return
  throw new Error(`it opens ${openFiles} files and may open ${allowed}: ulimit -Hn ${openFiles}`)
}

function write(results: readonly RowResult[]): void {
  if (results.length === 0) return
  const out = values.out ?? (values.quick ? path.join(ROOT, 'build', 'bench') : undefined)
  const folder = out ?? path.join(ROOT, 'docs')
  mkdirSync(folder, { recursive: true })
  const order = ROWS.map(({ id }) => id)
  const merged = mergeIntoFile(path.join(folder, 'performance.json'), results, order)
  writeFileSync(path.join(folder, 'performance.svg'), drawChart(merged))
  if (out !== undefined) return
  const page = path.join(folder, 'performance.md')
  writeFileSync(page, putIntoPage(readFileSync(page, 'utf8'), merged))
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}
