import { existsSync, readFileSync, rmSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { parseSshPublicKey } from '@postern/shared/certs/ssh-key'
import { parseKrl, type ReadKrl } from '@postern/shared/certs/ssh-krl'
import { PosternError } from '@postern/shared/errors'
import { EdgeApi } from '../api/edge-api.ts'
import { edgeNow, type KnownEdge, readRemembered } from '../credentials/known-edge.ts'
import { writePublicFile } from './change-file.ts'
import type { SshdLayout } from './drop-in.ts'
import { readEffectiveConfig } from './effective-config.ts'
import { findHostKeys, isRenewalDue, requestHostCertificates } from './host-certificates.ts'
import { reloadSshd } from './reload.ts'
import { lastLines, requireProgram, runProgram } from './run-program.ts'
import { readState, requireState, type SetupState } from './state.ts'
import { lockSetup, undoIfOverdue } from './undo.ts'

/** What has to stay up to date on a server that was set up: the list of revoked certificates, every minute, and the
 *  host certificates when half of their life is over. Whatever fails leaves the last good file where it is. */

export interface Refreshed {
  krl: ReadKrl
  /** Whether the list is another one than before. */
  isNewKrl: boolean
  renewedHostCertificates: number
}

/** @returns undefined when an unconfirmed setup was overdue, and taken back
 *  @throws KRL_INVALID · SSHD_SETUP_FAILED · EDGE_UNREACHABLE · EDGE_UNTRUSTED */
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
  const { krl, isNew } = await refreshKrl(layout, state, edge, acceptOlderList)
  const renewedHostCertificates = await renewHostCertificates(layout, state, edge)
  return { krl, isNewKrl: isNew, renewedHostCertificates }
}

/** The edge as it was when sshd was set up, with the connector's state. */
export function edgeOf(state: SetupState): KnownEdge {
  const { caPem, ...edge } = state.edge
  const facts = { issuer: edge.origin, clientId: '', tokenEndpoint: '', folder: state.edgeFolder }
  return { ...facts, ...edge, ...(caPem === undefined ? {} : { caPem }) }
}

async function refreshKrl(
  layout: SshdLayout,
  state: SetupState,
  edge: KnownEdge,
  acceptOlder: boolean,
): Promise<{ krl: ReadKrl; isNew: boolean }> {
  const ca = parseSshPublicKey(state.userCa).blob
  const bytes = await fetchKrl(edge)
  const krl = parseKrl(bytes, [ca])
  const installed = readInstalled(layout.krlFile, ca)
  if (installed && krl.version < installed.version && !acceptOlder) {
    throw new PosternError(
      'KRL_INVALID',
      `the edge's list of revoked certificates is older (${krl.version}) than this server's (${installed.version})`,
      { hint: 'if the edge was restored from a backup: postern sshd refresh --accept-older-list' },
    )
  }
  if (installed && krl.version === installed.version) return { krl: installed, isNew: false }
  await installKrl(layout, bytes)
  return { krl, isNew: true }
}

export async function fetchKrl(edge: KnownEdge): Promise<Buffer> {
  // keeps nothing: this runs as root, and files of root in the connector's folder would be in its way
  using api = new EdgeApi(edge, readRemembered(edge))
  return await api.getSshKrl()
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
function readInstalled(file: string, ca: Buffer): ReadKrl | undefined {
  if (!existsSync(file)) return undefined
  try {
    return parseKrl(readFileSync(file), [ca])
  } catch {
    return undefined
  }
}

/** sshd reads host certificates when it starts and when it is told to. */
async function renewHostCertificates(
  layout: SshdLayout,
  state: SetupState,
  edge: KnownEdge,
): Promise<number> {
  const { serviceHost, hostCa } = state
  if (hostCa === undefined) return 0
  const config = await readEffectiveConfig(state, userInfo().username)
  const wired = new Set(config.get('hostcertificate') ?? [])
  const due = findHostKeys(config, layout).filter(
    ({ certificateFile }) => wired.has(certificateFile) && isRenewalDue(certificateFile, edgeNow(edge)),
  )
  const issued = await requestHostCertificates(edge, { serviceHost, hostCa, hostKeys: due })
  for (const { certificateFile, line } of issued) writePublicFile(certificateFile, `${line}\n`)
  if (issued.length > 0) await reloadSshd(state)
  return issued.length
}
