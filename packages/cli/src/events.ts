import { type ErrorCode, PosternError } from '@postern/shared/errors'
import { print, tellError } from './io.ts'

/** What a command that stays tells as it happens: an object with the name of the event and its facts. */

export interface FlowTraffic {
  bytesUp: number
  bytesDown: number
  durationMs: number
  /** Code of the error that ended it; left out after a clean end. */
  error?: string
}

/** One JSON object per line on stdout.
 *  @param onReaderGone called when nobody reads stdout any more */
export function createJsonReport<Event extends { event: string }>(
  onReaderGone: (error: Error) => void,
): (event: Event) => void {
  return (event) => {
    print(`${JSON.stringify({ ...event, at: Date.now() })}\n`).catch(onReaderGone)
  }
}

export function errorFields({ code, message }: PosternError): { code: string; message: string } {
  return { code, message }
}

export interface Reason {
  message: string
  hint: string
}

/** What is wrong with a file that is read while the command runs. Without a line: with the file as a whole. */
export type ReportedProblem = { line?: number; code: ErrorCode } & Reason

export function reasonOf({ code, message, hint }: PosternError): { code: ErrorCode } & Reason {
  return { code, message, hint }
}

export function tellProblems(file: string, problems: readonly ReportedProblem[]): void {
  for (const { line, code, message, hint } of problems) {
    tellError(
      new PosternError(code, line === undefined ? message : `${file}, line ${line}: ${message}`, { hint }),
    )
  }
}
