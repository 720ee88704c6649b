import { readFileSync } from 'node:fs'
import { PosternError } from '@postern/shared/errors'
import { unreadableFile } from '@postern/shared/unreadable-file'

const ABOUT_CA =
  'ask whoever runs the edge for its CA (postern-edge ca export), or name it with --ca-fingerprint'

/** Certificates in PEM, as `--ca-file` names them.
 *  @param hint where to get them, when these are none
 *  @throws USAGE_INVALID */
export function readCaFile(file: string, hint = ABOUT_CA): string {
  let pem: string
  try {
    pem = readFileSync(file, 'utf8')
  } catch (cause) {
    throw unreadableFile(file, cause, hint)
  }
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new PosternError('USAGE_INVALID', `${file} holds no certificate in PEM`, { hint })
  }
  return pem
}
