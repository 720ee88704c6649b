import { PosternError } from './errors.ts'

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EISDIR: 'it is a folder',
  EACCES: 'this user may not read it',
  EPERM: 'this user may not read it',
}

/** A file that somebody has named and that cannot be read: which, why in words, and what to do.
 *  @param what how the file is called in the sentence */
export function unreadableFile(
  what: string,
  cause: unknown,
  hint = 'check the name of the file, and that this user may read it',
): PosternError {
  if (cause instanceof PosternError) return cause
  const { code = '', message } = cause as NodeJS.ErrnoException
  return new PosternError('USAGE_INVALID', `cannot read ${what}: ${REASONS[code] ?? message}`, {
    cause,
    hint,
  })
}
