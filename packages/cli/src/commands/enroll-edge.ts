import { existsSync } from 'node:fs'
import { ERRORS, PosternError } from '@postern/shared/errors'
import { EdgeApi } from '../api/edge-api.ts'
import { OTHER_CA_HINT } from '../api/network-error.ts'
import { readCaFile } from '../ca-file.ts'
import { fingerprintsOf, followCas } from '../credentials/edge-cas.ts'
import { edgeFolder, stateFolder } from '../credentials/home.ts'
import {
  type KnownEdge,
  listEdges,
  loadEdge,
  readRemembered,
  saveEdge,
  saveRemembered,
} from '../credentials/known-edge.ts'
import { type CaOptions, readCa } from './ca-options.ts'

/** The edge that a server without a person is to enroll at. It is named on the command line, where login would have made
 *  it known; once it is known it is not asked again, so that a connector starts while its edge is away.
 *  @throws USAGE_INVALID · EDGE_UNTRUSTED · EDGE_UNREACHABLE */
export async function findEdgeToEnroll(
  options: CaOptions & { edge?: string | undefined },
): Promise<KnownEdge> {
  const home = stateFolder()
  const known = options.edge === undefined ? onlyEdge(home) : loadEdge(home, options.edge)
  const origin = options.edge ?? known?.origin
  if (origin === undefined) {
    throw new PosternError('USAGE_INVALID', 'an enroll token does not say for which edge it is', {
      hint: 'name the edge: --edge https://HOST, and its CA with --ca-fingerprint or --ca-file when it is a private one',
    })
  }
  if (known && !namesOtherCa(options, known)) return known
  try {
    return await learn(home, origin, await readCa(origin, options, known?.caPem))
  } catch (error) {
    throw withCaHint(error)
  }
}

async function learn(home: string, origin: string, caPem: string | undefined): Promise<KnownEdge> {
  const { learnEdge } = await import('../login/sign-in.ts')
  using api = new EdgeApi({ origin, caPem }, readRemembered({ folder: edgeFolder(home, origin) }))
  const edge = saveEdge(home, await learnEdge(api, caPem))
  saveRemembered(edge, api.memory)
  await followCas(edge, api)
  return edge
}

function onlyEdge(home: string): KnownEdge | undefined {
  const edges = listEdges(home)
  return edges.length === 1 ? edges[0] : undefined
}

/** A file that has gone since says nothing against the CA that was read from it; neither does a CA that the edge has led away
 *  from: the command line is older than that. */
function namesOtherCa({ caFile, caFingerprint, publicCa }: CaOptions, edge: KnownEdge): boolean {
  if (publicCa) return edge.caPem !== undefined
  const known = [edge.caPem, edge.namedCaPem].filter((pem) => pem !== undefined)
  if (caFile !== undefined) return existsSync(caFile) && !known.includes(readCaFile(caFile))
  if (!caFingerprint) return false
  const fingerprint = `sha256:${caFingerprint.toString('hex')}`
  return !known.some((pem) => fingerprintsOf(pem).split(' ').includes(fingerprint))
}

const LOGIN_HINTS: ReadonlySet<string> = new Set([ERRORS.EDGE_UNTRUSTED.hint, OTHER_CA_HINT])

/** Login's own hint leads to a sign-in, and nobody is there to do that. */
function withCaHint(error: unknown): unknown {
  if (!(error instanceof PosternError) || !LOGIN_HINTS.has(error.hint)) return error
  const { code, message, cause } = error
  return new PosternError(code, message, {
    hint: 'if the edge has its own CA, name it: --ca-file FILE, or --ca-fingerprint as postern-edge prints it',
    cause,
  })
}
