import type { FigureResult, GoalResult, Results } from './results.ts'

/** The results as one picture: throughput side by side, and how far each goal is reached. No script, no font of its
 *  own, readable on light and dark pages. */

const WIDTH = 860
const LABEL_WIDTH = 430
const BAR_WIDTH = 250
const LINE = 20
const COLOURS = { ours: '#2f7d4f', theirs: '#8a8f98', missed: '#b5482f', mark: '#555b66' }

interface Bar {
  label: string
  value: number
  text: string
  colour: string
}

export function drawChart({ rows }: Results): string {
  const throughput = rows.find(({ id }) => id === 'P1')?.figures ?? []
  const goals = rows.flatMap(({ id, goals: of }) =>
    of.map((goal) => ({ ...goal, text: `${id}  ${goal.text}` })),
  )
  const parts = [
    drawBars('Throughput over the full path, Mbit/s', throughput.map(toBar), LINE),
    drawBars('How far each goal is reached; the line is the goal', goals.map(toGoalBar), 0, 1),
  ]
  let top = 10
  const groups = parts.map(({ svg, height }) => {
    const group = `<g transform="translate(0 ${top})">${svg}</g>`
    top += height
    return group
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top}" font-family="sans-serif" font-size="12">
<title>Postern beside other tunnels: throughput, and how far each goal is reached</title>
<rect width="100%" height="100%" fill="#ffffff"/>
${groups.join('\n')}
</svg>
`
}

function toBar({ name, median }: FigureResult): Bar {
  const colour = name.startsWith('postern') ? COLOURS.ours : COLOURS.theirs
  return { label: name, value: median, text: String(median), colour }
}

const ENOUGH = 2

/** 1 is the goal, more is better, twice is enough. */
function toGoalBar({ text, value, limit, unit, relation, reached }: GoalResult): Bar {
  const share = relation === 'at least' ? value / limit : value <= limit / ENOUGH ? ENOUGH : limit / value
  return {
    label: text,
    value: Math.min(ENOUGH, Math.max(0, share)),
    text: `${value} ${unit} (${relation} ${limit})`,
    colour: reached ? COLOURS.ours : COLOURS.missed,
  }
}

/** @param mark a value at which a line is drawn */
function drawBars(
  title: string,
  bars: readonly Bar[],
  gap: number,
  mark?: number,
): { svg: string; height: number } {
  const largest = Math.max(
    mark === undefined ? Number.EPSILON : mark * ENOUGH,
    ...bars.map(({ value }) => value),
  )
  const scale = (value: number) => Math.round((value / largest) * BAR_WIDTH)
  const lines = bars.map(({ label, value, text, colour }, index) => {
    const y = (index + 1) * LINE + 8
    return `<text x="${LABEL_WIDTH - 8}" y="${y + 11}" text-anchor="end" fill="#222">${escapeXml(shorten(label))}</text>
<rect x="${LABEL_WIDTH}" y="${y}" width="${scale(value)}" height="${LINE - 6}" fill="${colour}"/>
<text x="${LABEL_WIDTH + scale(value) + 5}" y="${y + 11}" fill="#222">${escapeXml(text)}</text>`
  })
  const height = (bars.length + 1) * LINE + 16
  const x = LABEL_WIDTH + scale(mark ?? 0)
  const line =
    mark === undefined
      ? ''
      : `<line x1="${x}" x2="${x}" y1="${LINE}" y2="${height - 8}" stroke="${COLOURS.mark}" stroke-dasharray="4 3"/>`
  const heading = `<text x="10" y="14" font-size="14" font-weight="bold" fill="#222">${escapeXml(title)}</text>`
  return { svg: [heading, ...lines, line].join('\n'), height: height + gap }
}

const MAX_LABEL = 68

function shorten(label: string): string {
  return label.length <= MAX_LABEL ? label : `${label.slice(0, MAX_LABEL - 1)}…`
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
