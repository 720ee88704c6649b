/** Structured log lines: an event name first, values as fields, no secrets, no payload bytes. The edge gives a
 *  pino logger, the connector prints lines for people or JSON. */
export interface Logger {
  debug(event: string, fields?: Record<string, unknown>): void
  info(event: string, fields?: Record<string, unknown>): void
  warn(event: string, fields?: Record<string, unknown>): void
  error(event: string, fields?: Record<string, unknown>): void
}
