import type { LookupAddress } from 'node:dns'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { lookupHost } from '@postern/shared/lookup-host'
import { VERSION } from '@postern/shared/version'
import { newestCa } from '../credentials/edge-cas.ts'
import { openApi } from '../credentials/fresh.ts'
import { edgePort, type KnownEdge, withOrigin } from '../credentials/known-edge.ts'
import { chooseProxy } from '../network/choose-proxy.ts'
import { describeProxy } from '../network/proxy-talk.ts'
import { type Check, fail, ok, warn } from './check.ts'
import { compareVersions } from './versions.ts'

/** What lies between this machine and the edge. Changes nothing. */

/** From here on people are told at sign-in too. */
const CLOCK_WARNING_MS = 30_000
const CA_WARNING_MS = 30 * 24 * 3_600_000

/** Which way connections to the edge take. */
export function checkProxy(edge: KnownEdge, env: NodeJS.ProcessEnv): Check {
  if (env.NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    return warn(
      'proxy',
      'NODE_TLS_REJECT_UNAUTHORIZED=0 is set; postern verifies certificates all the same',
      'unset NODE_TLS_REJECT_UNAUTHORIZED: other programs are in danger by it',
    )
  }
  try {
    const proxy = chooseProxy({ host: edge.domain, port: edgePort(edge) }, env)
    return ok(
      'proxy',
      proxy ? `${describeProxy(proxy)} leads to the edge` : 'the edge is reached without a proxy',
    )
  } catch (error) {
    return fail('proxy', error as PosternError)
  }
}

/** @param host of a service, or any name below the edge's */
export async function checkDns(edge: KnownEdge, host: string): Promise<Check> {
  if (chooseProxy({ host: edge.domain, port: edgePort(edge) }, process.env))
    return ok('dns', 'the proxy looks the names up')
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
  const { validToDate } = newestCa(edge.caPem)
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
