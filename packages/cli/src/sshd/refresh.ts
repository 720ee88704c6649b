import { existsSync, readFileSync, rmSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { parseSshPublicKey, sshFingerprint } from '@postern/shared/certs/ssh-key'
import { parseKrl, type ReadKrl } from '@postern/shared/certs/ssh-krl'
import { PosternError } from '@postern/shared/errors'
import { EdgeApi } from '../api/edge-api.ts'
import { edgeNow, type KnownEdge, readRemembered } from '../credentials/known-edge.ts'
import { casOf, installCas, learnCas, type ServerCas, withoutEndedCas, withoutNewCas } from './authorities.ts'
import { writePublicFile } from './change-file.ts'
import type { SshdLayout } from './drop-in.ts'
import { readEffectiveConfig } from './effective-config.ts'
import { findHostKeys, isRenewalDue, requestHostCertificates } from './host-certificates.ts'
import { linesOf, signingOf } from './known-authorities.ts'
import { reloadSshd } from './reload.ts'
import { lastLines, requireProgram, runProgram } from './run-program.ts'
import { readState, requireState, type SetupState, writeState } from './state.ts'
import { lockSetup, undoIfOverdue } from './undo.ts'

/** What has to stay up to date on a server that was set up: the CAs that it believes and the list of revoked
 *  certificates, every minute, and the host certificates when half of their life is over. Whatever fails leaves the last
 *  good file where it is. */

export interface Refreshed {
  krl: ReadKrl
  /** Whether the list is another one than before. */
  isNewKrl: boolean
  /** Of users' CAs, how many are believed now that were not, and the other way round. */
  userCas: { learned: number; dropped: number }
  renewedHostCertificates: number
}

/** @returns undefined when an unconfirmed setup was overdue, and taken back
 *  @throws KRL_INVALID · SSHD_SETUP_FAILED · SSH_CA_UNKNOWN · EDGE_UNREACHABLE · EDGE_UNTRUSTED */
export async function refreshSshd(
  layout: SshdLayout,
  { acceptOlderList = false }: { acceptOlderList?: boolean } = {},
): Promise<Refreshed | undefined> {
  requireState(layout)
  if (await undoIfOverdue(layout)) return undefined
  using _lock = await lockSetup(layout)
  const state = readState(layout)
  if (!state) return undefined // taken back while we waited
  const edge = edgeOf(state)
  const known = casOf(state)
  // what is over is over also while the edge is away
  const now = edgeNow(edge)
  const before = installCas(layout, state, { cas: withoutEndedCas(known, now), now })
  const { cas, problem } = await learnCas(casOf(before), edge)
  const current = installCas(layout, before, { cas: withoutNewCas(cas, casOf(before)), now })
  const { krl, isNew } = await refreshKrl(layout, cas, edge, acceptOlderList)
  // a new CA is let in once it is known what of it is revoked
  const after = keepEdgeCa(layout, installCas(layout, current, { cas, now: edgeNow(edge) }), edge)
  const renewedHostCertificates = await renewHostCertificates(layout, after, edge)
  if (problem) throw problem
  const userCas = compareLines(linesOf(known.userCas), linesOf(cas.userCas))
  return { krl, isNewKrl: isNew, userCas, renewedHostCertificates }
}

function keepEdgeCa(layout: SshdLayout, state: SetupState, { caPem }: KnownEdge): SetupState {
  if (caPem === undefined || caPem === state.edge.caPem) return state
  const after = { ...state, edge: { ...state.edge, caPem } }
  writeState(layout, after)
  return after
}

function compareLines(before: readonly string[], after: readonly string[]) {
  return {
    learned: after.filter((ca) => !before.includes(ca)).length,
    dropped: before.filter((ca) => !after.includes(ca)).length,
  }
}

/** The edge as it was when sshd was set up, with the connector's state. */
export function edgeOf(state: SetupState): KnownEdge {
  const { caPem, ...edge } = state.edge
  const facts = { issuer: edge.origin, clientId: '', tokenEndpoint: '', folder: state.edgeFolder }
  return { ...facts, ...edge, ...(caPem === undefined ? {} : { caPem }) }
}

async function refreshKrl(
  layout: SshdLayout,
  { userCas }: ServerCas,
  edge: KnownEdge,
  acceptOlder: boolean,
): Promise<{ krl: ReadKrl; isNew: boolean }> {
  const lines = linesOf(userCas)
  const bytes = await fetchKrl(edge, lines)
  const krl = parseKrl(bytes, lines.map(blobOf))
  // the one that is there may be of CAs that are over by now
  const installed = readInstalled(layout.krlFile, [...lines, ...userCas.dropped].map(blobOf))
  if (installed && krl.version < installed.version && !acceptOlder) {
    throw new PosternError(
      'KRL_INVALID',
      `the edge's list of revoked certificates is older (${krl.version}) than this server's (${installed.version})`,
      { hint: 'if the edge was restored from a backup: postern sshd refresh --accept-older-list' },
    )
  }
  if (installed && isSame(krl, installed)) return { krl: installed, isNew: false }
  await installKrl(layout, bytes)
  return { krl, isNew: true }
}

/** Of the same version, and about the same CAs. */
function isSame(one: ReadKrl, other: ReadKrl): boolean {
  const casIn = ({ certificates }: ReadKrl) => certificates.map(({ ca }) => ca.toString('base64')).join(' ')
  return one.version === other.version && casIn(one) === casIn(other)
}

function blobOf(line: string): Buffer {
  return parseSshPublicKey(line).blob
}

/** Gives `edge` the CAs that it may be known by, where these are others than before.
 *  @param lines of the CAs that may be named in it: the edge is told, and leaves others out */
export async function fetchKrl(edge: KnownEdge, lines: readonly string[]): Promise<Buffer> {
  // keeps nothing: this runs as root, and files of root in the connector's folder would be in its way
  using api = new EdgeApi(edge, readRemembered(edge))
  const bytes = await api.getSshKrl(lines.map((line) => sshFingerprint(blobOf(line))))
  const { findNextCas } = await import('../credentials/follow-cas.ts')
  const caPem = await findNextCas(edge, api)
  if (caPem !== undefined) edge.caPem = caPem
  return bytes
}

/** A list that sshd may read: parsed by us before, and by OpenSSH now. */
export async function installKrl(layout: SshdLayout, bytes: Buffer): Promise<void> {
  const tried = path.join(layout.folder, 'untried.krl')
  writePublicFile(tried, bytes)
  const { code, stderr } = await runProgram(requireProgram('ssh-keygen'), ['-Q', '-l', '-f', tried])
  rmSync(tried, { force: true })
  if (code !== 0) {
    throw new PosternError('KRL_INVALID', `OpenSSH cannot read the list: ${lastLines(stderr)}`)
  }
  writePublicFile(layout.krlFile, bytes)
}

/** A damaged file counts as none: the next good one replaces it. */
function readInstalled(file: string, authorities: readonly Buffer[]): ReadKrl | undefined {
  if (!existsSync(file)) return undefined
  try {
    return parseKrl(readFileSync(file), authorities)
  } catch {
    return undefined
  }
}

/** After that every edge signs with the new CA, also one whose clock is behind. */
const SETTLED_MS = 60_000

/** sshd reads host certificates when it starts and when it is told to. */
async function renewHostCertificates(
  layout: SshdLayout,
  state: SetupState,
  edge: KnownEdge,
): Promise<number> {
  const { serviceHost } = state
  const { hostCas } = casOf(state)
  if (!hostCas) return 0
  const now = edgeNow(edge)
  const signing = signingOf(hostCas, now - SETTLED_MS).ca
  const config = await readEffectiveConfig(state, userInfo().username)
  const wired = new Set(config.get('hostcertificate') ?? [])
  const due = findHostKeys(config, layout).filter(
    ({ certificateFile }) => wired.has(certificateFile) && isRenewalDue(certificateFile, { signing, now }),
  )
  const issued = await requestHostCertificates(edge, {
    serviceHost,
    hostCas: linesOf(hostCas),
    hostKeys: due,
  })
  for (const { certificateFile, line } of issued) writePublicFile(certificateFile, `${line}\n`)
  if (issued.length > 0) await reloadSshd(state)
  return issued.length
}
