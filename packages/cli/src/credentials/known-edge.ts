import { readdirSync } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { labelOfHost, normalizeHost, type ServiceLabel } from '@postern/shared/service-label'
import { edgeFolder, edgesFolder } from './home.ts'
import { readStateFile, type ShapeValue, writeStateFile } from './state-file.ts'

/** Edges that a person has signed in to, or that a server was told to enroll at. Nothing but `login --edge` and
 *  `connect --enroll-token-file` adds one: a host name in an ssh config must never be enough to open a page. */

const EDGE_SHAPE = {
  origin: 'string',
  domain: 'string',
  issuer: 'string',
  clientId: 'string',
  tokenEndpoint: 'string',
  /** Those that are believed now, oldest first. */
  caPem: 'string?',
  /** What a person or a command line named, where the edge has led from it to others since. */
  namedCaPem: 'string?',
} as const

/** What is learned with every answer. No secret, no harm when two processes write it at once. */
const REMEMBERED_SHAPE = { clockOffsetMs: 'number', dpopNonce: 'string?' } as const

export type EdgeFacts = ShapeValue<typeof EDGE_SHAPE>
export type Remembered = ShapeValue<typeof REMEMBERED_SHAPE>

export interface KnownEdge extends EdgeFacts {
  /** Where the session and certificates of this edge lie. */
  folder: string
}

export function loadEdge(home: string, origin: string): KnownEdge | undefined {
  return readEdgeFolder(edgeFolder(home, origin))
}

/** @throws STATE_INVALID the folder is there and cannot be read: nobody is to think that they never signed in */
export function listEdges(home: string): KnownEdge[] {
  let names: string[]
  try {
    names = readdirSync(edgesFolder(home))
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    const reason = code === 'EACCES' ? 'this user may not read it' : message
    throw new PosternError('STATE_INVALID', `cannot read ${edgesFolder(home)}: ${reason}`, {
      cause,
      hint: 'let this user read it, or name a folder of theirs in POSTERN_HOME',
    })
  }
  return names
    .sort()
    .map((name) => readEdgeFolder(path.join(edgesFolder(home), name)))
    .filter((edge) => edge !== undefined)
}

export function saveEdge(home: string, facts: EdgeFacts): KnownEdge {
  const known = loadEdge(home, facts.origin)
  const isAsBefore = facts.caPem !== undefined && facts.caPem === known?.caPem
  const named = isAsBefore && known.namedCaPem !== undefined ? { namedCaPem: known.namedCaPem } : {}
  return saveEdgeFolder({ ...facts, ...named, folder: edgeFolder(home, facts.origin) })
}

export function saveEdgeFolder(edge: KnownEdge): KnownEdge {
  const { folder, ...facts } = edge
  writeStateFile(path.join(folder, 'edge.json'), facts)
  return edge
}

/** What another process has learned of the edge's CAs, or a person has named, since this one began. */
export function reloadCas(edge: KnownEdge): void {
  const stored = readEdgeFolder(edge.folder)
  if (!stored) return
  if (stored.caPem === undefined) delete edge.caPem
  else edge.caPem = stored.caPem
}

export function readRemembered(edge: Pick<KnownEdge, 'folder'>): Remembered {
  return readStateFile(path.join(edge.folder, 'remembered.json'), REMEMBERED_SHAPE) ?? { clockOffsetMs: 0 }
}

export function saveRemembered(edge: Pick<KnownEdge, 'folder'>, remembered: Remembered): void {
  writeStateFile(path.join(edge.folder, 'remembered.json'), remembered)
}

/** The edge's clock, as far as the last answers told it. Epoch milliseconds. */
export function edgeNow(edge: Pick<KnownEdge, 'folder'>, now: number = Date.now()): number {
  return now + readRemembered(edge).clockOffsetMs
}

export function edgePort(edge: Pick<KnownEdge, 'origin'>): number {
  return Number(new URL(edge.origin).port || 443)
}

/** The line to paste. */
export function loginLine(origin: string): string {
  return `postern login --edge ${origin}`
}

/** The table's hints name no edge; the person gets a line that can be pasted as it is. */
export function withOrigin(error: unknown, origin: string): unknown {
  if (!(error instanceof PosternError)) return error
  const hint = error.hint.replaceAll(ANY_ORIGIN, () => origin)
  if (hint === error.hint) return error
  const { code, message, cause, details } = error
  return new PosternError(code, message, { hint, cause, ...(details ? { details } : {}) })
}

/** Not the address of any proxy, `https://HOST:PORT`. */
const ANY_ORIGIN = /https:\/\/HOST(?!:PORT)/g

/** The first tool of this kind had ssh call itself with such an end, so that the inner call finds another block of the
 *  configuration. */
export function withoutDummy(host: string): string {
  return host.replace(/\.(?:mysocket|postern)-dummy\.?$/i, '')
}

/** Finds the edge of a service's host among the known ones.
 *  @param wanted `port` and `origin` of the edge, to tell edges with the same domain apart
 *  @throws EDGE_UNKNOWN with the exact login line · USAGE_INVALID when several edges fit, or it is no host name of a
 *    service */
export function findEdgeOfHost(
  home: string,
  hostText: string,
  wanted: { port?: number | undefined; origin?: string | undefined } = {},
): { edge: KnownEdge; label: ServiceLabel; host: string } {
  const host = normalizeHost(hostText)
  const fitting = listEdges(home).filter(
    (edge) =>
      labelOfHost(host, edge.domain) !== undefined &&
      (wanted.port === undefined || edgePort(edge) === wanted.port) &&
      (wanted.origin === undefined || edge.origin === wanted.origin),
  )
  const [edge] = fitting
  if (!edge) throw noService(host, listEdges(home)) ?? unknownEdge(host, wanted)
  if (fitting.length > 1) {
    throw new PosternError('USAGE_INVALID', `several edges you signed in to serve ${edge.domain}`, {
      hint: `name the edge's port: --port ${fitting.map(edgePort).join(' or --port ')}`,
    })
  }
  return { edge, label: labelOfHost(host, edge.domain)!, host }
}

/** The edge named by `--edge`, or the only known one.
 *  @throws EDGE_UNKNOWN · USAGE_INVALID when several are known */
export function pickEdge(home: string, origin?: string): KnownEdge {
  if (origin !== undefined) {
    const edge = loadEdge(home, origin)
    if (edge) return edge
    throw new PosternError('EDGE_UNKNOWN', `you have not signed in to ${origin}`, {
      hint: `sign in: ${loginLine(origin)}`,
    })
  }
  const edges = listEdges(home)
  if (edges.length === 1) return edges[0]!
  if (edges.length === 0) throw new PosternError('EDGE_UNKNOWN', 'you have not signed in to an edge yet')
  throw new PosternError('USAGE_INVALID', 'you have signed in to several edges', {
    hint: `name one: ${edges.map((edge) => `--edge ${edge.origin}`).join(' or ')}`,
  })
}

/** At least two labels of DNS. The line to paste is made of it, and ssh hands over whatever was typed, or linked to:
 *  nothing in it may mean anything to a shell. */
const HOST_NAME = /^(?!.{254})[a-z0-9](?:[a-z0-9-]{0,62})(?:\.[a-z0-9][a-z0-9-]{0,62})+$/

/** Under the domain of an edge that is known, and still not what a service there can be called: no sign-in helps. */
function noService(host: string, edges: readonly KnownEdge[]): PosternError | undefined {
  const edge = edges.find(({ domain }) => host === domain || host.endsWith(`.${domain}`))
  if (!edge || !HOST_NAME.test(host) || labelOfHost(host, edge.domain) !== undefined) return undefined
  return new PosternError('USAGE_INVALID', `${host} is not the host name of a service`, {
    hint: `a service has one label before the domain, as in crimson-thunder-8434.${edge.domain}; yours: postern service list`,
  })
}

function unknownEdge(
  host: string,
  wanted: { port?: number | undefined; origin?: string | undefined },
): Error {
  if (!HOST_NAME.test(host)) {
    return new PosternError('USAGE_INVALID', `${JSON.stringify(host)} is not the host name of a service`, {
      hint: 'write it in full, as in crimson-thunder-8434.edge.example.com',
    })
  }
  const domain = host.slice(host.indexOf('.') + 1)
  const port = wanted.port === undefined || wanted.port === 443 ? '' : `:${wanted.port}`
  const origin = wanted.origin ?? `https://${domain}${port}`
  return new PosternError('EDGE_UNKNOWN', `you have not signed in to an edge that serves ${host}`, {
    hint: `sign in: ${loginLine(origin)}`,
  })
}

export function readEdgeFolder(folder: string): KnownEdge | undefined {
  const facts = readStateFile(path.join(folder, 'edge.json'), EDGE_SHAPE)
  return facts && { ...facts, folder }
}
