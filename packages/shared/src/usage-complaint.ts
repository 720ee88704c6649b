import { PosternError } from './errors.ts'

/** Commander's complaint, "error: unknown command 'logn'\n(Did you mean login?)", as an error that is told as all
 *  others are, by both programs. */
export function explainComplaint(complaint: string): PosternError {
  const [problem = '', suggestion] = complaint.replace(/^error: /, '').split('\n(')
  const hint = suggestion?.replace(/^D/, 'd').replace(/\)\s*$/, '')
  return new PosternError('USAGE_INVALID', problem, hint ? { hint } : {})
}

/** What commander throws where it has printed the help, because a command is missing. */
export const HELP_SHOWN = 'commander.help'
