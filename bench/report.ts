import type { FigureResult, GoalResult, Machine, Results, RowResult } from './results.ts'

/** The results as people read them: a table for the terminal, and the part of docs/performance.md that is measured. */

export function formatTable(rows: readonly RowResult[]): string {
  return rows.map((row) => [`${row.id}  ${row.title}`, ...formatRow(row), ''].join('\n')).join('\n')
}

function formatRow({ figures, goals, notes }: RowResult): string[] {
  const width = Math.max(...figures.map(({ name }) => name.length))
  return [
    ...figures.map((figure) => `    ${figure.name.padEnd(width)}  ${formatFigure(figure)}`),
    ...goals.map((goal) => `    ${goal.reached ? 'reached' : 'MISSED '}  ${goal.text}: ${formatGoal(goal)}`),
    ...notes.map((note) => `    ${note}`),
  ]
}

function formatFigure({ median, unit, min, max, values }: FigureResult): string {
  const spread = values.length > 1 ? `   (${min} to ${max}, ${values.length} rounds)` : ''
  return `${' '.repeat(Math.max(0, 8 - String(median).length))}${amount(median, unit)}${spread}`
}

function formatGoal({ value, unit, relation, limit }: GoalResult): string {
  return `${amount(value, unit)}, ${relation} ${amount(limit, unit)}`
}

/** Some are only counted. */
function amount(value: number, unit: string): string {
  return unit === '' ? String(value) : `${value} ${unit}`
}

const BEGIN = '<!-- measured: written by npm run bench -->'
const END = '<!-- measured: end -->'

/** @throws when the page has lost the marks between which the figures stand */
export function putIntoPage(page: string, results: Results): string {
  const [before, rest] = page.split(BEGIN)
  const after = rest?.split(END)[1]
  if (before === undefined || after === undefined) throw new Error(`the page has no ${BEGIN} … ${END}`)
  return `${before}${BEGIN}\n\n${formatPage(results)}\n\n${END}${after}`
}

const CHART = '![Throughput side by side, and how far each goal is reached](performance.svg)'

function formatPage({ rows }: Results): string {
  return [CHART, formatGoals(rows), formatMachines(rows), ...rows.map(formatSection)].join('\n\n')
}

function formatGoals(rows: readonly RowResult[]): string {
  const lines = rows.flatMap(({ id, title, goals }) =>
    goals.map(
      (goal) =>
        `| ${id} | ${title}: ${goal.text} | ${amount(goal.value, goal.unit)} | ${goal.relation} ${amount(goal.limit, goal.unit)} | ${goal.reached ? 'yes' : '**no**'} |`,
    ),
  )
  return ['| # | measured | is | goal | reached |', '|---|---|---|---|---|', ...lines].join('\n')
}

function formatMachines(rows: readonly RowResult[]): string {
  const machines = Map.groupBy(rows, ({ machine }) => describe(machine))
  const lines = [...machines].map(([machine, of]) => {
    const loads = of.map(({ machine: { load } }) => load)
    const span = `${Math.min(...loads)} to ${Math.max(...loads)}`
    const days = [...new Set(of.map(({ at }) => at.slice(0, 10)))].sort().join(', ')
    return `- ${of.map(({ id }) => id).join(', ')}: ${machine}; ${days}; load when the rows began ${span}`
  })
  return ['Where:', ...lines].join('\n')
}

function describe({ processor, cores, memoryGib, system, node, openssl }: Machine): string {
  return `${cores} × ${processor}, ${memoryGib} GiB, ${system}, Node ${node}, OpenSSL ${openssl}`
}

function formatSection({ id, title, figures, notes }: RowResult): string {
  const lines = figures.map(
    ({ name, unit, median, min, max, values }) =>
      `| ${name} | ${amount(median, unit)} | ${values.length > 1 ? `${min} to ${max}` : ''} | ${values.length} |`,
  )
  return [
    `### ${id}: ${title}`,
    ['| | median | spread | rounds |', '|---|---|---|---|', ...lines].join('\n'),
    ...notes,
  ].join('\n\n')
}
