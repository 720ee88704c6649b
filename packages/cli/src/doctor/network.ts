import { X509Certificate } from 'node:crypto'
import type { LookupAddress } from 'node:dns'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { lookupHost } from '@postern/shared/lookup-host'
import { VERSION } from '@postern/shared/version'
import { openApi } from '../credentials/fresh.ts'
import { edgePort, type KnownEdge, withOrigin } from '../credentials/known-edge.ts'
import { type Check, fail, ok, warn } from './check.ts'
import { compareVersions } from './versions.ts'

/** What lies between this machine and the edge. Changes nothing. */

/** From here on people are told at sign-in too. */
const CLOCK_WARNING_MS = 30_000
const CA_WARNING_MS = 30 * 24 * 3_600_000

const PROXY_VARIABLES = ['HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy']

/** postern connects by itself: a variable that makes other programs work is a frequent reason why it does not. */
export function checkProxy(edge: KnownEdge, env: NodeJS.ProcessEnv): Check {
  if (env.NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    return warn(
      'proxy',
      'NODE_TLS_REJECT_UNAUTHORIZED=0 is set; postern verifies certificates all the same',
      'unset NODE_TLS_REJECT_UNAUTHORIZED: other programs are in danger by it',
    )
  }
  const set = PROXY_VARIABLES.filter((name) => env[name])
  if (set.length === 0) return ok('proxy', 'no proxy variable is set')
  if (isExcepted(edge.domain, env.NO_PROXY ?? env.no_proxy ?? '')) {
    return ok('proxy', `${set.join(', ')} is set, and NO_PROXY excepts ${edge.domain}`)
  }
  return warn(
    'proxy',
    `${set.join(', ')} is set; postern uses no proxy, it connects to ${edge.domain}:${edgePort(edge)} itself`,
    `let this machine connect to ${edge.domain}:${edgePort(edge)} directly, and add ${edge.domain} to NO_PROXY`,
  )
}

function isExcepted(domain: string, noProxy: string): boolean {
  const entries = noProxy.split(',').map((entry) =>
    entry
      .trim()
      .toLowerCase()
      .replace(/^\*?\./, ''),
  )
  return entries.some((entry) => entry === '*' || (entry && `.${domain}`.endsWith(`.${entry}`)))
}

/** @param host of a service, or any name below the edge's */
export async function checkDns(edge: KnownEdge, host: string): Promise<Check> {
  const own = await lookUp(edge.domain)
  if (own instanceof Error) {
    return fail('dns', {
      message: `${edge.domain} cannot be looked up: ${own.message}`,
      hint: 'check the network and the name servers of this machine (resolvectl query NAME)',
    })
  }
  const below = await lookUp(host)
  if (below instanceof Error || !below.some((address) => own.includes(address))) {
    return warn(
      'dns',
      `${edge.domain} is ${own.join(', ')}, but ${host} ${below instanceof Error ? 'is unknown' : `is ${below.join(', ')}`}`,
      `postern works without it; for other TLS clients let *.${edge.domain} lead to the edge`,
    )
  }
  return ok('dns', `${edge.domain} and the names below it are ${own.join(', ')}`)
}

function lookUp(host: string): Promise<string[] | Error> {
  return new Promise((resolve) => {
    lookupHost(host, { all: true }, (error, found) => {
      const addresses = Array.isArray(found) ? (found as LookupAddress[]).map(({ address }) => address) : []
      resolve(error ?? addresses.sort())
    })
  })
}

/** Asks the edge for what everybody may know. */
export async function checkEdge(edge: KnownEdge): Promise<Check[]> {
  using api = openApi(edge)
  let version: string
  try {
    version = (await api.getEdge()).version
  } catch (thrown) {
    const error = withOrigin(thrown, edge.origin)
    if (!(error instanceof PosternError)) throw error
    const name = error.code === 'CLOCK_OFF' ? 'clock' : error.code === 'EDGE_UNTRUSTED' ? 'ca' : 'edge'
    return [fail(name, error)]
  }
  return [
    ok('edge', `${edge.origin} answers`),
    compareVersions(VERSION, version),
    checkCa(edge),
    checkClock(api.memory.clockOffsetMs),
  ]
}

function checkCa(edge: KnownEdge): Check {
  if (edge.caPem === undefined) return ok('ca', "the edge's certificate is trusted by this machine")
  const { validToDate } = new X509Certificate(edge.caPem)
  const leftMs = validToDate.getTime() - Date.now()
  const until = validToDate.toISOString().slice(0, 10)
  if (leftMs > CA_WARNING_MS)
    return ok('ca', `the edge's certificate is of the CA named at sign-in, until ${until}`)
  return warn(
    'ca',
    `the CA named at sign-in ends on ${until}`,
    `get the edge's new CA and sign in with it: postern login --edge ${edge.origin} --ca-file FILE`,
  )
}

function checkClock(offsetMs: number): Check {
  const distance = formatDuration(Math.abs(offsetMs))
  if (Math.abs(offsetMs) < CLOCK_WARNING_MS)
    return ok('clock', 'this machine and the edge agree about the time')
  return warn(
    'clock',
    `this machine's clock is ${distance} ${offsetMs > 0 ? 'behind' : 'ahead of'} the edge's`,
    'set it: timedatectl set-ntp true',
  )
}
