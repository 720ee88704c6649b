import type { PosternError } from '@postern/shared/errors'

/** One thing that `postern doctor` looked at. */
export interface Check {
  name: CheckName
  /** `warn`: works, or works for some; `fail`: something that a command needs does not. */
  state: 'ok' | 'warn' | 'fail'
  message: string
  /** The next step; always there unless `ok`. */
  fix?: string
}

export type CheckName =
  | 'edge'
  | 'version'
  | 'proxy'
  | 'dns'
  | 'ca'
  | 'clock'
  | 'session'
  | 'certificate'
  | 'flow'
  | 'ssh config'

export function ok(name: CheckName, message: string): Check {
  return { name, state: 'ok', message }
}

export function warn(name: CheckName, message: string, fix: string): Check {
  return { name, state: 'warn', message, fix }
}

export function fail(name: CheckName, error: Pick<PosternError, 'message' | 'hint'>): Check {
  return { name, state: 'fail', message: error.message, fix: error.hint }
}
