import { readFileSync } from 'node:fs'
import { chmod, writeFile } from 'node:fs/promises'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { lookupHost } from '@postern/shared/lookup-host'

/** Signs in without a screen: a stand-in for the browser that postern opens. It follows redirects with a cookie
 *  jar, types the address into the form, presses the first button of every page, as a person would, and ends on
 *  postern's own page on the loopback. The edge's certificate is checked against the CA it is given. */

const MAX_STEPS = 20

export interface DevLoginOptions {
  /** What the person types into `email` (or `login`, at a provider's page). */
  email: string
  /** CA of the edge, PEM. */
  caFile: string
  /** What the person types where a page asks for the code of a program elsewhere. */
  userCode?: string
}

export interface FormBrowserOptions {
  /** CA of the edge, PEM. */
  caFile: string
  /** True for an address that is not requested any more: the browser stops in front of it. */
  stopAt?: (url: URL) => boolean
}

/** Opens `url` and clicks through to the end.
 *  @returns the text of the last page
 *  @throws when a page refuses, with what it said */
export async function signInWithoutScreen(url: string, options: DevLoginOptions): Promise<string> {
  const browser = new FormBrowser(options)
  let page = await browser.open(new URL(url))
  for (let step = 0; step < MAX_STEPS; step++) {
    if (page.status >= 400)
      throw new Error(`${page.url.origin} answered ${page.status}: ${readableText(page.html)}`)
    const form = readForm(page.html)
    if (!form) return readableText(page.html)
    if (options.userCode && form.fields.has('user_code')) form.fields.set('user_code', options.userCode)
    page = await browser.submit(page, form, options.email)
  }
  throw new Error(`still a form after ${MAX_STEPS} pages`)
}

/** Writes an executable that works as `--browser FILE` or `$BROWSER` and signs in as `email`. */
export async function writeDevBrowser(file: string, options: DevLoginOptions): Promise<string> {
  const command = [
    process.execPath,
    ...process.execArgv.filter((arg) => /^--(conditions|import)=/.test(arg)),
    fileURLToPath(import.meta.url),
    `--email=${options.email}`,
    `--ca-file=${options.caFile}`,
  ]
  await writeFile(file, `#!/bin/sh\nexec ${command.map(quoteForShell).join(' ')} "$@"\n`)
  await chmod(file, 0o755)
  return file
}

export function quoteForShell(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

export interface Page {
  url: URL
  status: number
  html: string
}

export interface Form {
  action: string
  fields: URLSearchParams
  /** Name of the field that wants to know who it is. */
  accountField: string | undefined
}

interface Cookie {
  value: string
  path: string
  secure: boolean
}

/** Keeps cookies and follows redirects, as a browser does, and does nothing by itself. */
export class FormBrowser {
  /** Every address it was sent to or opened, in order. */
  readonly visited: URL[] = []
  readonly #agent: https.Agent
  readonly #stopAt: (url: URL) => boolean
  /** By host name, then cookie name: browsers share cookies between the ports of a host. */
  readonly #jar = new Map<string, Map<string, Cookie>>()

  constructor(options: FormBrowserOptions) {
    this.#stopAt = options.stopAt ?? (() => false)
    this.#agent = new https.Agent({
      ca: [...tls.rootCertificates, readFileSync(options.caFile, 'utf8')],
      proxyEnv: process.env, // as browsers do
    })
  }

  async open(url: URL): Promise<Page> {
    return this.#follow(url, { method: 'GET', headers: {} })
  }

  /** Gives this browser a cookie that nobody has sent it. */
  plant(host: string, name: string, value: string): void {
    const cookies = this.#jar.get(host) ?? new Map<string, Cookie>()
    this.#jar.set(host, cookies.set(name, { value, path: '/', secure: true }))
  }

  /** Cookies that this browser sends to a host, by name. */
  cookiesOf(host: string): Map<string, string> {
    return new Map([...(this.#jar.get(host) ?? [])].map(([name, { value }]) => [name, value]))
  }

  async submit(page: Page, form: Form, account: string): Promise<Page> {
    const body = new URLSearchParams(form.fields)
    if (form.accountField) body.set(form.accountField, account)
    const headers = {
      'content-type': 'application/x-www-form-urlencoded',
      origin: page.url.origin,
      referer: page.url.href,
      'sec-fetch-site': 'same-origin',
      'sec-fetch-mode': 'navigate',
      'sec-fetch-dest': 'document',
    }
    return this.#follow(new URL(form.action, page.url), { method: 'POST', headers, body: body.toString() })
  }

  async #follow(start: URL, first: Request): Promise<Page> {
    let url = start
    let request = first
    for (let step = 0; step < MAX_STEPS; step++) {
      this.visited.push(url)
      if (this.#stopAt(url)) return { url, status: 0, html: '' }
      const { status, headers, html } = await this.#send(url, request)
      this.#keepCookies(url, headers['set-cookie'] ?? [])
      if (status < 300 || status >= 400 || !headers.location) return { url, status, html }
      url = new URL(headers.location, url)
      request = { method: 'GET', headers: {} }
    }
    throw new Error(`more than ${MAX_STEPS} redirects, the last to ${url.origin}${url.pathname}`)
  }

  #send(url: URL, { method, headers, body }: Request) {
    const cookie = this.#cookiesFor(url)
    const secure = url.protocol === 'https:'
    const options = {
      method,
      headers: { ...headers, accept: 'text/html', ...(cookie ? { cookie } : {}) },
      lookup: lookupHost,
      ...(secure ? { agent: this.#agent } : {}),
    }
    return new Promise<Answer>((resolve, reject) => {
      const request = (secure ? https : http).request(url, options, (response) => {
        readAnswer(response).then(resolve, reject)
      })
      request.on('error', reject)
      request.end(body)
    })
  }

  #cookiesFor(url: URL): string {
    const cookies = [...(this.#jar.get(url.hostname) ?? [])]
    return cookies
      .filter(([, cookie]) => !cookie.secure || url.protocol === 'https:')
      .filter(([, cookie]) => cookie.path === '/' || `${url.pathname}/`.startsWith(`${cookie.path}/`))
      .map(([name, cookie]) => `${name}=${cookie.value}`)
      .join('; ')
  }

  #keepCookies(url: URL, lines: readonly string[]): void {
    const cookies = this.#jar.get(url.hostname) ?? new Map<string, Cookie>()
    this.#jar.set(url.hostname, cookies)
    for (const line of lines) {
      const [pair = '', ...attributes] = line.split(/;\s*/)
      const name = pair.slice(0, pair.indexOf('='))
      const value = pair.slice(pair.indexOf('=') + 1)
      const read = (wanted: string) =>
        attributes.find((text) => text.toLowerCase().split('=')[0] === wanted)?.slice(wanted.length + 1)
      const expires = read('max-age') === '0' || Date.parse(read('expires') ?? '') <= Date.now()
      if (name.startsWith('__Host-')) requireHostCookie(name, read)
      if (expires || value === '') cookies.delete(name)
      else cookies.set(name, { value, path: read('path') ?? '/', secure: read('secure') !== undefined })
    }
  }
}

interface Request {
  method: 'GET' | 'POST'
  headers: Record<string, string>
  body?: string
}

interface Answer {
  status: number
  headers: IncomingMessage['headers']
  html: string
}

/** A browser drops such a cookie without a word (RFC 6265bis §4.1.3.2); here it is worth one. */
function requireHostCookie(name: string, read: (attribute: string) => string | undefined): void {
  if (read('secure') === undefined || read('path') !== '/' || read('domain') !== undefined) {
    throw new Error(`a browser refuses the cookie ${name}: it needs Secure, Path=/ and no Domain`)
  }
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    html: Buffer.concat(chunks).toString('utf8'),
  }
}

/** The first form that is posted, with what its hidden fields and its first button carry. */
export function readForm(html: string): Form | undefined {
  const forms = html.matchAll(/<form\b([^>]*)>([\s\S]*?)<\/form>/gi)
  for (const [, attributes = '', inner = ''] of forms) {
    if (readAttribute(attributes, 'method')?.toLowerCase() !== 'post') continue
    const inputs = [...inner.matchAll(/<input\b([^>]*)>/gi)].map((match) => match[1] ?? '')
    const button = /<button\b([^>]*)>/i.exec(inner)?.[1] ?? ''
    const fields = new URLSearchParams()
    for (const input of [...inputs, button]) {
      const name = readAttribute(input, 'name')
      if (name) fields.set(name, readAttribute(input, 'value') ?? '')
    }
    const accountField = ['email', 'login'].find((name) => fields.has(name))
    return { action: readAttribute(attributes, 'action') ?? '', fields, accountField }
  }
  return undefined
}

function readAttribute(attributes: string, name: string): string | undefined {
  const match = new RegExp(`(?:^|\\s)${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)'|([^\\s>]+))`, 'i').exec(
    attributes,
  )
  const text = match?.[1] ?? match?.[2] ?? match?.[3]
  return text === undefined ? undefined : unescapeHtml(text)
}

function unescapeHtml(text: string): string {
  const names: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
  return text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (whole, decimal, hex, name) => {
    if (decimal) return String.fromCodePoint(Number(decimal))
    if (hex) return String.fromCodePoint(Number.parseInt(hex, 16))
    return names[name] ?? whole
  })
}

function readableText(html: string): string {
  const text = html.replace(/<(style|script|title)\b[\s\S]*?<\/\1>/gi, '').replace(/<[^>]+>/g, ' ')
  return unescapeHtml(text).replace(/\s+/g, ' ').trim().slice(0, 500)
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { email: { type: 'string' }, 'ca-file': { type: 'string' } },
    allowPositionals: true,
  })
  const url = positionals[0]
  if (!values.email || !values['ca-file'] || !url) {
    process.stderr.write('usage: dev-login --email=ADDRESS --ca-file=FILE URL\n')
    process.exit(2)
  }
  try {
    await signInWithoutScreen(url, { email: values.email, caFile: values['ca-file'] })
  } catch (error) {
    process.stderr.write(`sign-in page: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}
