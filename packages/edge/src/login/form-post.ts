import type { IncomingMessage } from 'node:http'
import { PosternError } from '@postern/shared/errors'

/** Bodies of browsers' forms, and the question whether our own page sent them. */

export const MAX_BODY_BYTES = 16 * 1_024
export const BODY_TIMEOUT_MS = 10_000

/** Refuses a state change that another origin's page asks for. Browsers send `Origin` with every POST; `null`
 *  (sandboxed frames, redirects across origins) is another origin.
 *  @throws REQUEST_INVALID */
export function requireOwnOrigin(req: IncomingMessage, origin: string): void {
  const from = req.headers.origin
  if (from === origin) return
  throw new PosternError(
    'REQUEST_INVALID',
    from === undefined
      ? 'the request does not say which page it comes from'
      : 'the request comes from a page of another site',
    { hint: `use a browser and the page on ${origin} itself; a program sends the header Origin: ${origin}` },
  )
}

/** For the forms of the dev identity: programs may leave `Origin` out, pages of other sites cannot.
 *  @throws REQUEST_INVALID */
export function refuseOtherOrigin(req: IncomingMessage, origin: string): void {
  if (req.headers.origin !== undefined) requireOwnOrigin(req, origin)
}

/** Limits every body before anybody reads it, whoever reads it.
 *  @throws REQUEST_TOO_LARGE · REQUEST_INVALID the length is not announced */
export function limitBody(req: IncomingMessage): void {
  if (req.headers['transfer-encoding'] !== undefined) {
    throw new PosternError('REQUEST_INVALID', 'the request does not announce its length')
  }
  if (Number(req.headers['content-length'] ?? 0) > MAX_BODY_BYTES) {
    throw new PosternError('REQUEST_TOO_LARGE', 'the request is too large')
  }
  if (req.complete) return
  const timer = setTimeout(() => req.destroy(), BODY_TIMEOUT_MS)
  timer.unref()
  req.once('end', () => clearTimeout(timer)).once('close', () => clearTimeout(timer))
}

/** Reads a form as browsers send it. The length was limited before; Node holds the sender to it.
 *  @throws REQUEST_INVALID */
export async function readForm(req: IncomingMessage): Promise<URLSearchParams> {
  const type = (req.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase()
  if (type !== 'application/x-www-form-urlencoded') {
    throw new PosternError('REQUEST_INVALID', 'the request is not a form')
  }
  const chunks: Buffer[] = []
  for await (const chunk of req) chunks.push(chunk)
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'))
}
