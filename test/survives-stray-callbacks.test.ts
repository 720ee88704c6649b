import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Agent, type IncomingHttpHeaders, request } from 'node:http'
import { after, before, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import type { Program } from '../demo/program.ts'
import { Canaries } from './support/canaries.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { callbackOf, pageAddressIn, signInUpToCallback } from './support/login-page.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { copyHome } from './support/stored-session.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { within } from './support/until.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** Every program of the machine and every page in the browser can knock at the port where postern waits for the
 *  answer of a login. Nothing but the answer is taken, nothing stops the login, and no secret comes out. */

const PERSON = 'ann@mycorp.com'
const STRAYS = 1_000

let provider: UpstreamProvider
let edge: EdgeProcess

before(async () => {
  const port = await findFreePort()
  provider = await startUpstreamProvider({
    edgeOrigin: `https://edge.localhost:${port}`,
    accounts: { [PERSON]: { sub: 'a1', email: PERSON, email_verified: true } },
  })
  edge = await startEdge({ port, identity: provider.identity })
})
after(async () => {
  await edge?.[Symbol.asyncDispose]()
  await provider?.[Symbol.asyncDispose]()
})

interface Page {
  status: number
  headers: IncomingHttpHeaders
  text: string
}

function knock(
  url: URL,
  { method = 'GET', headers = {}, agent }: { method?: string; headers?: object; agent?: Agent } = {},
): Promise<Page> {
  return new Promise((resolve, reject) => {
    const options = { method, headers: { ...headers }, ...(agent ? { agent } : {}) }
    const knocking = request(url, options, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
    })
    knocking.on('error', reject).end()
  })
}

/** The page of a login that waits, and what may be asked of its port. */
async function startLogin(): Promise<{ home: string; login: Program; url: string; callback: URL }> {
  const home = makeTempFolder('home')
  const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--no-browser']
  const login = spawnPostern(args, { home, stdin: '' })
  const url = await login.output((program) => pageAddressIn(program.stderr))
  return { home, login, url, callback: callbackOf(url) }
}

function withQuery(callback: URL, query: Record<string, string>, path = callback.pathname): URL {
  const url = new URL(callback)
  url.pathname = path
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  return url
}

async function assertSignedIn(home: string, login: Program): Promise<void> {
  const { code, stderr } = await within('the login ends', login.ended)
  assert.equal(code, 0, stderr)
  const whoami = await runPostern(['whoami', '--json'], { home })
  assert.equal(JSON.parse(whoami.stdout).identity.email, PERSON)
}

test('whatever comes before the answer is turned away, and the login completes', async () => {
  const { home, login, url, callback } = await startLogin()
  const state = new URL(url).searchParams.get('state')!
  const planted = { code: 'planted-code-of-an-attacker', iss: edge.origin }
  const foreign = { headers: { host: `attacker.example:${callback.port}` } }
  const strays: [what: string, status: number, page: Promise<Page>][] = [
    ['no state', 400, knock(withQuery(callback, planted))],
    ['another state', 400, knock(withQuery(callback, { ...planted, state: 'x'.repeat(state.length) }))],
    ['an empty state', 400, knock(withQuery(callback, { ...planted, state: '' }))],
    ['a longer state', 400, knock(withQuery(callback, { ...planted, state: `${state}x` }))],
    ['an error without state', 400, knock(withQuery(callback, { error: 'access_denied' }))],
    ['neither code nor error', 400, knock(withQuery(callback, { state }))],
    ['another path', 404, knock(withQuery(callback, { ...planted, state }, '/'))],
    ['a path below', 404, knock(withQuery(callback, { ...planted, state }, '/callback/x'))],
    ['the last page, too early', 404, knock(withQuery(callback, {}, '/done'))],
    ['a foreign Host', 400, knock(withQuery(callback, { ...planted, state }), foreign)],
    ['HEAD', 400, knock(withQuery(callback, { ...planted, state }), { method: 'HEAD' })],
    ['POST', 400, knock(withQuery(callback, { ...planted, state }), { method: 'POST' })],
    ['a preflight', 400, knock(callback, { method: 'OPTIONS', headers: { origin: 'https://a.example' } })],
  ]
  for (const [what, status, page] of strays) assert.equal((await page).status, status, what)

  const agent = new Agent({ maxSockets: 20 })
  const hits = Array.from({ length: STRAYS }, (_, index) =>
    knock(withQuery(callback, { ...planted, state: `stray-${index}` }), { agent }),
  )
  for (const { status } of await Promise.all(hits)) assert.equal(status, 400)
  assert.ok(login.isRunning, login.logs())

  const answer = await signInUpToCallback(url, edge, PERSON)
  // a browser that loads pages ahead, and then the page itself: both bring the same answer
  const ahead = knock(answer, { headers: { 'sec-purpose': 'prefetch', purpose: 'prefetch' } })
  const head = await knock(answer, { method: 'HEAD' })
  assert.equal(head.status, 400)
  const first = await ahead
  assert.deepEqual([first.status, first.headers.location], [303, '/done'])
  await knock(new URL('/done', callback))
  await assertSignedIn(home, login)
})

test('a second callback changes nothing, whatever it brings', async () => {
  const { home, login, url, callback } = await startLogin()
  const answer = await signInUpToCallback(url, edge, PERSON)
  const state = answer.searchParams.get('state')!
  const [first, ...later] = await Promise.all([
    knock(answer),
    // right behind it, on connections of their own; the port may be closed already
    knock(withQuery(callback, { state, code: 'another-code', iss: edge.origin })).catch(() => undefined),
    knock(withQuery(callback, { state, error: 'access_denied' })).catch(() => undefined),
    knock(answer).catch(() => undefined),
  ])
  assert.equal(first.status, 303)
  for (const page of later) if (page) assert.ok([303, 400].includes(page.status))
  await assertSignedIn(home, login)
})

test('no token and no code in any page, address that leaves the machine, log or error', async () => {
  const canaries = new Canaries()
  const { home, login, url, callback } = await startLogin()
  const answer = await signInUpToCallback(url, edge, PERSON)
  canaries.add('authorization code', answer.searchParams.get('code')!)
  const pages = [await knock(answer), await knock(new URL('/done', callback))]
  const shown = await login.ended
  canaries.addSession(home)

  for (const { text, headers } of pages) {
    canaries.assertNoneIn("a page of the command line's", text + JSON.stringify(headers))
    assert.equal(headers['referrer-policy'], 'no-referrer')
    assert.equal(headers['cache-control'], 'no-store')
  }
  const whoami = await runPostern(['whoami', '--json'], { home })
  await runPostern(['logout'], { home: copyHome(home) })
  const ended = await runPostern(['whoami'], { home })
  assert.equal(ended.code, 4)
  for (const { stdout, stderr } of [shown, whoami, ended]) {
    canaries.assertNoneIn('the output of postern', stdout + stderr)
  }
  canaries.assertNoneIn("the edge's log", edge.logs())
  for (const { href } of provider.authorizationRequests)
    canaries.assertNoneIn('a request to the provider', href)
  canaries.assertNoneIn('the address of the sign-in page', url)
  canaries.assertNoneIn('the audit log and the store', readStore())
})

/** The whole database as bytes, with what SQLite has not yet moved into its main file. */
function readStore(): string {
  return ['edge.sqlite', 'edge.sqlite-wal']
    .map((name) => readFileSync(`${edge.dataDir}/${name}`, 'latin1'))
    .join('')
}
