import { readFileSync } from 'node:fs'
import { PosternError } from '../errors.ts'
import { unreadableFile } from '../unreadable-file.ts'

/** A certificate request that somebody has named, PEM. What is in it is for its reader to judge.
 *  @throws USAGE_INVALID */
export function readCsrFile(file: string): string {
  let csr: string
  try {
    csr = readFileSync(file, 'utf8')
  } catch (cause) {
    throw unreadableFile(file, cause, 'name a certificate request in PEM with --csr')
  }
  const begin = csr.indexOf('-----BEGIN CERTIFICATE REQUEST-----')
  if (begin >= 0) return csr.slice(begin) // openssl req -text puts a description in front
  throw new PosternError('USAGE_INVALID', `${file} holds no certificate request in PEM`, {
    hint: 'make one: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj / -out request.csr',
  })
}
