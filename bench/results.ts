import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import { type Figure, type Goal, isReached, type Measured, type Row } from './row.ts'
import { median } from './statistics.ts'

/** What is kept of a run, as JSON: the table, the chart and the page are made from it. */
export interface Results {
  rows: RowResult[]
}

export interface RowResult {
  id: string
  title: string
  /** When it was measured; ISO 8601. */
  at: string
  machine: Machine
  rounds: number
  /** Sizes at which figures mean nothing. */
  quick: boolean
  figures: FigureResult[]
  goals: GoalResult[]
  notes: string[]
}

export interface Machine {
  processor: string
  cores: number
  memoryGib: number
  system: string
  node: string
  openssl: string
  /** Processes that wanted to run when the row began, over one minute: more than a few, and others disturbed it. */
  load: number
}

export interface FigureResult {
  name: string
  unit: string
  median: number
  min: number
  max: number
  values: number[]
}

export interface GoalResult extends Goal {
  reached: boolean
}

export function describeMachine(): Machine {
  return {
    processor: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.cpus().length,
    memoryGib: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.versions.node,
    openssl: process.versions.openssl,
    load: round(os.loadavg()[0] ?? 0),
  }
}

export function toResult(
  row: Row,
  measured: Measured,
  how: Pick<RowResult, 'machine' | 'rounds' | 'quick'>,
): RowResult {
  return {
    id: row.id,
    title: row.title,
    at: new Date().toISOString(),
    ...how,
    figures: measured.figures.map(summarize),
    goals: measured.goals.map((goal) => ({ ...goal, value: round(goal.value), reached: isReached(goal) })),
    notes: measured.notes ?? [],
  }
}

function summarize({ name, unit, values }: Figure): FigureResult {
  const [min, max] = [Math.min(...values), Math.max(...values)]
  return {
    name,
    unit,
    median: round(median(values)),
    min: round(min),
    max: round(max),
    values: values.map(round),
  }
}

/** Three digits that count: more would be noise. */
export function round(value: number): number {
  return Math.abs(value) >= 1_000 ? Math.round(value) : Number(value.toPrecision(3))
}

/** The rows of this run in the place of the same rows of earlier ones. */
export function mergeIntoFile(file: string, rows: readonly RowResult[], order: readonly string[]): Results {
  const before: Results = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { rows: [] }
  const kept = before.rows.filter(({ id }) => !rows.some((row) => row.id === id))
  const merged = [...kept, ...rows].sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id))
  writeFileSync(file, `${JSON.stringify({ rows: merged }, null, 2)}\n`)
  return { rows: merged }
}
