import { ENROLL_TOKEN_FORM } from '@postern/shared/api/enroll'
import { PosternError } from '@postern/shared/errors'
import { readPrivateFile } from '../private-file.ts'

/** The token in a file.
 *  @throws USAGE_INVALID it cannot be read, or not by its owner alone · ENROLL_TOKEN_INVALID it holds none */
export function readEnrollToken(file: string): string {
  const token = readPrivateFile(file, {
    called: 'the enroll token',
    howToMake: 'make one with postern service enroll-token LABEL, and put it into a file of mode 600',
    whenOpen: `make a new token, for this one may be known, and keep it in a file of mode 600: chmod 600 ${file}`,
  }).trim()
  if (ENROLL_TOKEN_FORM.test(token)) return token
  // what stands there may be another secret: it is not repeated
  throw new PosternError('ENROLL_TOKEN_INVALID', `${file} holds no enroll token`)
}
