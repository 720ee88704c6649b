import type { Program } from '../../demo/program.ts'

/** One line of a `postern` command that tells with `--json` what happens. */
export interface EventLine {
  event: string
  [member: string]: unknown
}

/** All events so far. */
export function readEvents(program: Program): EventLine[] {
  const lines = program.stdout.split('\n').slice(0, -1)
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as EventLine)
}

/** Waits for an event, also one that has been. */
export function waitForEvent(
  program: Program,
  name: string,
  matches: (event: EventLine) => boolean = () => true,
  timeoutMs?: number,
): Promise<EventLine> {
  const find = () => readEvents(program).find((line) => line.event === name && matches(line))
  return program.output(find, timeoutMs)
}
