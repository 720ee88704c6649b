import path from 'node:path'
import { parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { InvalidArgumentError, Option } from 'commander'
import type { KeyLock } from '../ca/key-file.ts'
import { readSecret } from '../config/load.ts'
import { LOG_LEVELS } from '../logger.ts'

/** Options that several commands have. */

export const configOption = () =>
  new Option('--config <file>', 'the configuration file').makeOptionMandatory()

export const logLevelOption = () =>
  new Option('--log-level <level>', 'what is logged').choices(LOG_LEVELS).default('info')

export const drainOption = () =>
  new Option('--drain <duration>', 'how long live flows may go on after SIGTERM or SIGINT')
    .default(30_000, '30s')
    .argParser(readDuration)

export function readDuration(text: string): number {
  try {
    return parseDuration(text)
  } catch (error) {
    if (error instanceof PosternError) throw new InvalidArgumentError(error.hint)
    throw error
  }
}

export interface RootOptions {
  offlineRoot?: string
  rootPassphraseFile?: string
}

export const rootOptions = () => [
  new Option('--offline-root <dir>', 'the folder of the root, apart from the edge'),
  new Option('--root-passphrase-file <file>', 'what its key is encrypted under'),
]

/** @throws USAGE_INVALID */
export function readRootOptions(
  { offlineRoot, rootPassphraseFile }: Required<RootOptions>,
  cwd: string,
): { folder: string; lock: KeyLock } {
  const file = path.resolve(cwd, rootPassphraseFile)
  return { folder: path.resolve(cwd, offlineRoot), lock: readLock(file) }
}

/** @throws USAGE_INVALID */
export function readLock(file: string): KeyLock {
  try {
    return { passphrase: readSecret(file), file }
  } catch (cause) {
    throw new PosternError('USAGE_INVALID', `${file} ${(cause as Error).message}`, { cause })
  }
}
