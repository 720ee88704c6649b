import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** The loopback end of a login (RFC 8252 §7.3): listens on 127.0.0.1 on a port of the system's choice, takes one
 *  answer with the right state and closes. Every program on this machine and every page in the browser can knock
 *  here, so anything else is turned away and the login goes on. */
export interface Loopback extends AsyncDisposable {
  redirectUri: string
  /** Resolves with the whole callback URL. */
  answer: Promise<URL>
  /** What the person reads in the browser. Resolves when it was delivered, or nobody asked for it in time. */
  finish(outcome: Outcome): Promise<void>
}

export interface Outcome {
  title: string
  text: string
}

/** A browser follows the redirect at once; a script may not follow it at all. */
const FOLLOW_MS = 1_000

export async function listenForCallback(state: string): Promise<Loopback> {
  const answer = Promise.withResolvers<URL>()
  const outcome = Promise.withResolvers<Outcome>()
  const delivered = Promise.withResolvers<void>()
  let answered = false
  let followed = false

  const server = createServer((request, response) => {
    const { port } = server.address() as AddressInfo
    const url = readRequestUrl(request, `127.0.0.1:${port}`)
    if (!url) return turnAway(response, 400)
    if (url.pathname === '/done' && answered) {
      followed = true
      response.on('close', () => delivered.resolve())
      outcome.promise.then((page) => sendPage(response, page)).catch(() => response.destroy())
      return
    }
    if (url.pathname !== '/callback') return turnAway(response, 404)
    if (!isAnswer(url, state)) return turnAway(response, 400)
    answered = true
    // the code must not stay in the address bar or the history
    response.writeHead(303, { ...PAGE_HEADERS, location: '/done' }).end()
    answer.resolve(url)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: '127.0.0.1', port: 0 }, resolve)
  })
  const { port } = server.address() as AddressInfo

  return {
    redirectUri: `http://127.0.0.1:${port}/callback`,
    answer: answer.promise,
    async finish(page) {
      outcome.resolve(page)
      if (!answered) return
      const timer = setTimeout(() => followed || delivered.resolve(), FOLLOW_MS)
      await delivered.promise
      clearTimeout(timer)
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

/** Undefined for another method, another Host (a page that points its own name at 127.0.0.1) or no URL. */
function readRequestUrl(request: IncomingMessage, host: string): URL | undefined {
  if (request.method !== 'GET' || request.headers.host !== host) return undefined
  return URL.parse(request.url ?? '', `http://${host}`) ?? undefined
}

function isAnswer(url: URL, state: string): boolean {
  const given = Buffer.from(url.searchParams.get('state') ?? '')
  const expected = Buffer.from(state)
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return false
  return url.searchParams.has('code') || url.searchParams.has('error')
}

const STYLE =
  'body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1.5rem;color:#222;background:#fff}h1{font-size:1.5rem}@media(prefers-color-scheme:dark){body{color:#eee;background:#181818}}'

const PAGE_HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  connection: 'close',
}

function sendPage(response: ServerResponse, { title, text }: Outcome): void {
  response
    .writeHead(200, { ...PAGE_HEADERS, 'content-type': 'text/html; charset=utf-8' })
    .end(
      `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeHtml(title)}</title><style>${STYLE}</style><h1>${escapeHtml(title)}</h1><p>${escapeHtml(text)}</p></html>`,
    )
}

function turnAway(response: ServerResponse, status: number): void {
  response
    .writeHead(status, { ...PAGE_HEADERS, 'content-type': 'text/plain' })
    .end('this address only takes the answer of a postern login\n')
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
