import type { Logger } from '@postern/shared/logger'
import { pino } from 'pino'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Nobody should log these; whoever does by mistake logs `[Redacted]`. */
const SECRET_NAMES = [
  'authorization',
  'cookie',
  'password',
  'secret',
  'clientSecret',
  'client_secret',
  'token',
  'accessToken',
  'access_token',
  'refreshToken',
  'refresh_token',
  'code_verifier',
  'codeVerifier',
  'key',
]

/** One JSON object per line: time, level, event, then the fields. An `error` field is written with its code and
 *  what caused it. */
export function createLogger(output: { write(text: string): void }, level: LogLevel = 'info'): Logger {
  const log = pino(
    {
      level,
      base: null,
      messageKey: 'event',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: SECRET_NAMES.flatMap((name) => [name, `*.${name}`]),
      serializers: { error: describeError },
    },
    output,
  )
  return {
    debug: (event, fields) => log.debug(fields ?? {}, event),
    info: (event, fields) => log.info(fields ?? {}, event),
    warn: (event, fields) => log.warn(fields ?? {}, event),
    error: (event, fields) => log.error(fields ?? {}, event),
  }
}

/** Causes nest; five of them say enough. */
function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error
  const { code, details } = error as Error & { code?: unknown; details?: unknown }
  return {
    ...(code === undefined ? {} : { code }),
    message: error.message,
    ...(details === undefined ? {} : { details }),
    stack: error.stack,
    ...(error.cause === undefined || depth >= 5 ? {} : { cause: describeError(error.cause, depth + 1) }),
  }
}
