import { PosternError } from '@postern/shared/errors'
import { isLocalhost } from '@postern/shared/lookup-host'
import { readPrivateFile } from '../private-file.ts'
import { isLoopback } from '../tunnel/local-user.ts'
import type { Place } from './open-tcp.ts'

/** Which proxy leads to a place, and what it wants to know. */

export interface ProxyServer extends Place {
  /** `https`: TLS with the proxy itself, around CONNECT. */
  kind: 'http' | 'https' | 'socks5'
  credentials?: Credentials | undefined
}

export interface Credentials {
  name: string
  password: string
}

const DEFAULT_PORTS: Readonly<Record<ProxyServer['kind'], number>> = { http: 80, https: 443, socks5: 1080 }
const HOW_TO_WRITE = 'write it as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT'

/** The proxy of `--proxy` and POSTERN_PROXY leads everywhere. Those that all programs share lead neither to this machine
 *  itself nor to what NO_PROXY names.
 *  @throws USAGE_INVALID */
export function chooseProxy(place: Place, env: NodeJS.ProcessEnv): ProxyServer | undefined {
  const ours = env.POSTERN_PROXY
  if (ours) return readProxy('POSTERN_PROXY (--proxy)', ours, env)
  const name = ['HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'].find((variable) => env[variable])
  if (name === undefined || isLocalhost(place.host) || isLoopback(place.host)) return undefined
  if (isExcepted(place, env.NO_PROXY ?? env.no_proxy ?? '')) return undefined
  return readProxy(name, env[name]!, env)
}

/** `*`, or names with all that is below them, with a port or without: `mycorp.com`, `.mycorp.com`, `mycorp.com:8443`. */
function isExcepted({ host, port }: Place, noProxy: string): boolean {
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => {
      if (entry === '*') return true
      const [, name, digits] = /^\*?\.?([^:]+)(?::(\d+))?$/.exec(entry) ?? []
      if (name === undefined || (digits !== undefined && Number(digits) !== port)) return false
      return `.${host.toLowerCase()}`.endsWith(`.${name}`)
    })
}

/** What stands there may hold a password: it is not repeated.
 *  @param source where it stands, for the sentence */
function readProxy(source: string, text: string, env: NodeJS.ProcessEnv): ProxyServer {
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`)
  const kind = url && kindOf(url.protocol)
  if (!kind || !url.hostname || url.pathname.length > 1 || url.search || url.hash) {
    throw new PosternError('USAGE_INVALID', `${source} is not the address of a proxy`, { hint: HOW_TO_WRITE })
  }
  const proxy = {
    kind,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || DEFAULT_PORTS[kind]),
  }
  return { ...proxy, credentials: readCredentials(source, url, env) }
}

function kindOf(protocol: string): ProxyServer['kind'] | undefined {
  if (protocol === 'http:') return 'http'
  if (protocol === 'https:') return 'https'
  // curl's two ways to say who looks the name up: here it is always the proxy
  return protocol === 'socks5:' || protocol === 'socks5h:' || protocol === 'socks:' ? 'socks5' : undefined
}

function readCredentials(source: string, url: URL, env: NodeJS.ProcessEnv): Credentials | undefined {
  const file = env.POSTERN_PROXY_CREDENTIALS_FILE
  if (file) return readCredentialsFile(file)
  if (!url.username && !url.password) return undefined
  try {
    return checked({ name: decodeURIComponent(url.username), password: decodeURIComponent(url.password) })
  } catch (cause) {
    throw new PosternError('USAGE_INVALID', `${source} holds a user name or password that cannot be read`, {
      cause,
      hint: 'write special characters as %XX, or use a file: --proxy-credentials-file FILE',
    })
  }
}

/** One line, `USER:PASSWORD`. */
function readCredentialsFile(file: string): Credentials {
  const line = readPrivateFile(file, {
    called: "the proxy's credentials",
    howToMake: 'write USER:PASSWORD into a file of mode 600',
    whenOpen: `change the password, for this one may be known, and keep it in a file of mode 600: chmod 600 ${file}`,
  })
  const [, name, password] = /^([^:\r\n]+):([^\r\n]*)\r?\n?$/.exec(line) ?? []
  if (name !== undefined && password !== undefined) return checked({ name, password })
  throw new PosternError('USAGE_INVALID', `${file} holds no credentials of a proxy`, {
    hint: 'write one line into it: USER:PASSWORD',
  })
}

/** As much as SOCKS has room for, and nothing that ends a line of HTTP. */
function checked(credentials: Credentials): Credentials {
  for (const text of Object.values(credentials)) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    if (Buffer.byteLength(text) > 255 || /[\0-\x1f\x7f]/.test(text)) {
      throw new PosternError('USAGE_INVALID', "the proxy's user name or password is too long, or no text", {
        hint: 'each may have 255 bytes, without line breaks',
      })
    }
  }
  return credentials
}
