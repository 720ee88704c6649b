import type { IncomingMessage, ServerResponse } from 'node:http'
import type Provider from 'oidc-provider'

/** The cookies of the login, all `__Host-`: a service below our domain (`<label>.<domain>`) could otherwise plant
 *  its own. They are `Path=/`, which the prefix demands; the library would scope its own by path instead, so
 *  here the name says which login a cookie belongs to, and several logins in one browser stay apart. */

export const COOKIE_NAMES = {
  session: '__Host-postern-session',
  interaction: '__Host-postern-interaction',
  resume: '__Host-postern-resume',
} as const

const ATTRIBUTES = 'Path=/; Secure; HttpOnly; SameSite=Lax'

interface Cookies {
  get(name: string, options?: object): string | undefined
  set(name: string, value?: string | null, options?: object): Cookies
}

/** Makes the provider keep one signed cookie per login and nothing else: none of its browser session, none of
 *  its path-scoped interaction cookie.
 *  @NOTE overrides koa's `cookies` getter: the library sets these two itself, with a path that cannot be
 *  configured (lib/actions/authorization/interactions.js), and reads the session through a context of its own. */
export function confineIssuerCookies(provider: Provider): void {
  const inherited = Object.getPrototypeOf(provider.context)
  const wrapped = new WeakSet<Cookies>()
  Object.defineProperty(provider.context, 'cookies', {
    configurable: true,
    get(this: { path: string }): Cookies {
      const cookies: Cookies = Reflect.get(inherited, 'cookies', this)
      if (!wrapped.has(cookies)) wrapped.add(confine(cookies, this.path))
      return cookies
    },
  })
}

function confine(cookies: Cookies, path: string): Cookies {
  const { get, set } = cookies
  const uidOfPath = path.slice(path.lastIndexOf('/') + 1)
  cookies.get = (name, options) => {
    if (name === COOKIE_NAMES.session || name === COOKIE_NAMES.interaction) return undefined
    return get.call(cookies, name === COOKIE_NAMES.resume ? resumeCookieOf(uidOfPath) : name, options)
  }
  cookies.set = (name, value, options) => {
    if (name === COOKIE_NAMES.session || name === COOKIE_NAMES.interaction) return cookies
    const own = name === COOKIE_NAMES.resume ? resumeCookieOf(value || uidOfPath) : name
    return set.call(cookies, own, value, { ...options, path: '/', secure: true, sameSite: 'lax' })
  }
  return cookies
}

/** True when the browser of this request is the one in which login `uid` began. */
export function beganHere(provider: Provider, request: Exchange, uid: string): boolean {
  const { cookies } = provider.createContext(request.req, request.res)
  return [resumeCookieOf(uid), deviceCookieOf(uid)].some(
    (name) => cookies.get(name, { signed: true }) === uid,
  )
}

/** Marks the browser in which the code of a device was typed. A name of its own: the library resumes logins by the
 *  other, and there is nothing it could resume here. */
export function keepDeviceCookie(provider: Provider, request: Exchange, uid: string, seconds: number): void {
  const { cookies } = provider.createContext(request.req, request.res)
  const options = { path: '/', secure: true, httpOnly: true, sameSite: 'lax', signed: true } as const
  cookies.set(deviceCookieOf(uid), uid, { ...options, maxAge: seconds * 1_000 })
}

export function clearDeviceCookie(res: ServerResponse, uid: string): void {
  clearCookie(res, deviceCookieOf(uid))
  clearCookie(res, `${deviceCookieOf(uid)}.sig`)
}

interface Exchange {
  req: IncomingMessage
  res: ServerResponse
}

export function setCookie(res: ServerResponse, name: string, value: string, maxAgeSeconds: number): void {
  res.appendHeader('Set-Cookie', `${name}=${value}; ${ATTRIBUTES}; Max-Age=${maxAgeSeconds}`)
}

export function clearCookie(res: ServerResponse, name: string): void {
  setCookie(res, name, '', 0)
}

/** The first cookie of that name; undefined when there is none. */
export function readCookie(req: IncomingMessage, name: string): string | undefined {
  for (const pair of (req.headers.cookie ?? '').split(';')) {
    const equals = pair.indexOf('=')
    if (pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim()
  }
  return undefined
}

function deviceCookieOf(uid: string): string {
  return `__Host-postern-device-${uid}`
}

function resumeCookieOf(uid: string): string {
  return `${COOKIE_NAMES.resume}-${uid}`
}
