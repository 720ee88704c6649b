import { parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { InvalidArgumentError, Option } from 'commander'
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
