import { chmodSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { parseSshPublicKey } from '@postern/shared/certs/ssh-key'
import { EMPTY_KRL, parseKrl } from '@postern/shared/certs/ssh-krl'
import { PosternError } from '@postern/shared/errors'
import { edgeNow, type KnownEdge } from '../credentials/known-edge.ts'
import { learnCas, type ServerCas, signingCasOf, userCasText } from './authorities.ts'
import { applyChange, planChange, writePublicFile } from './change-file.ts'
import { checkNewAccess, checkOldAccess, readAccount, recordAccess } from './check-access.ts'
import { dropInText, layoutOf, principalsText, type SshdLayout } from './drop-in.ts'
import { checkConfig, readEffectiveConfig, type SshdFiles } from './effective-config.ts'
import { findHostKeys, type IssuedHostCertificate, requestHostCertificates } from './host-certificates.ts'
import { knownFrom, linesOf } from './known-authorities.ts'
import { fetchKrl, installKrl } from './refresh.ts'
import { reloadSshd } from './reload.ts'
import { type Scheduler, scheduleFiles, startSchedule } from './schedule.ts'
import { findDropInFile, includeAtTop, readConfig, readDirectives, refuseConflicts } from './sshd-config.ts'
import { readState, type SetupState, writeState } from './state.ts'
import { lockSetup, undoLocked } from './undo.ts'
import { startUndoTimer } from './undo-timer.ts'

/** Makes an sshd admit certificates of one service, so that nobody can lock themselves out: everything is tried
 *  before sshd hears of it, and a process that takes it back is up before the first file is changed. */

export interface SetupWishes {
  files: SshdFiles
  edge: KnownEdge
  serviceHost: string
  /** Lines of OpenSSH, at least one. */
  userCas: readonly string[]
  /** Likewise; none where the edge certifies no servers. */
  hostCas: readonly string[]
  /** Local accounts that the service's certificates open. */
  users: readonly string[]
  /** Admitted besides the service's own. */
  principals: readonly string[]
  reloadCommand: string | undefined
  confirmWithinMs: number
  scheduler: Scheduler
  /** Words that run `postern sshd refresh` on this machine. */
  refreshCommand: readonly string[]
  tellStep: (step: string) => void
}

/** What would be written where, for people. */
export interface PlannedFile {
  file: string
  text: string
}

/** Everything is looked at; nothing is written.
 *  @throws SSHD_SETUP_FAILED */
export async function planSetup(wishes: SetupWishes, certificateFiles: readonly string[]) {
  const { files, serviceHost, users, principals, userCas, scheduler, refreshCommand } = wishes
  const layout = layoutOf(files.configFile)
  refuseSecondSetup(layout)
  await checkConfig(files)
  refuseConflicts(readDirectives(files.configFile))
  for (const user of users) await requireAccount(user)

  const text = readConfig(files.configFile)
  const ownDropIn = path.join(layout.folder, 'sshd.conf')
  const dropInFile = findDropInFile(files.configFile, text) ?? ownDropIn
  const ours: PlannedFile[] = [
    { file: layout.userCaFile, text: userCasText(userCas) },
    ...users.map((user) => ({
      file: path.join(layout.principalsFolder, user),
      text: principalsText(serviceHost, principals),
    })),
  ]
  const system: PlannedFile[] = [
    { file: dropInFile, text: dropInText(serviceHost, layout, certificateFiles) },
    ...(dropInFile === ownDropIn ? [{ file: files.configFile, text: includeAtTop(text, dropInFile) }] : []),
    ...scheduleFiles(scheduler, refreshCommand),
  ]
  return { layout, dropInFile, ours, system }
}

/** Sets up, checks and reloads; what fails on the way is taken back at once.
 *  @throws SSHD_SETUP_FAILED · KRL_INVALID · what the edge says */
export async function setUpSshd(given: SetupWishes): Promise<SetupState> {
  const { files, tellStep } = given
  const layout = layoutOf(files.configFile)
  refuseSecondSetup(layout)
  await checkConfig(files)
  const cas = await findCas(given)
  const wishes = { ...given, ...linesOfBoth(cas) }
  const krl = await fetchFirstKrl(wishes)
  parseKrl(
    krl,
    wishes.userCas.map((line) => parseSshPublicKey(line).blob),
  )
  const certificates = await issueHostCertificates(wishes, layout)
  const plan = await planSetup(
    wishes,
    certificates.map(({ certificateFile }) => certificateFile),
  )
  tellStep('trying which keys open it now')
  const before = await recordAccess(files, await usersToKeep(wishes.users))

  makeFolders(layout)
  using _lock = await lockSetup(layout)
  refuseSecondSetup(layout)
  const state = stateOf(wishes, plan, cas)
  let isReloaded = false
  try {
    await installKrl(layout, krl)
    for (const { certificateFile, line } of certificates) writePublicFile(certificateFile, `${line}\n`)
    for (const { file, text } of plan.ours) writePublicFile(file, text)
    writeState(layout, state)
    await startUndoTimer(layout, files.configFile, wishes.confirmWithinMs)
    for (const change of state.files) applyChange(change)
    await checkConfig(files)
    tellStep('checking with a second sshd that old keys and new certificates open it')
    await checkOldAccess(files, before)
    await checkNewAccess(files, { ...wishes, userCaFile: layout.userCaFile })
    isReloaded = true
    tellStep('reloading sshd')
    await reloadSshd(state)
    await startSchedule(state.scheduler)
    return state
  } catch (error) {
    await undoLocked(layout, state, { reload: isReloaded })
    throw error
  }
}

/** The CAs that were named, and those that they vouch for: while one takes over from the other there are two.
 *  @throws SSH_CA_UNKNOWN the edge has others */
async function findCas({ edge, userCas, hostCas }: SetupWishes): Promise<ServerCas> {
  const named = {
    userCas: knownFrom(userCas),
    ...(hostCas.length > 0 ? { hostCas: knownFrom(hostCas) } : {}),
  }
  const { cas, problem } = await learnCas(named, edge)
  if (!problem) return cas
  throw new PosternError(problem.code, problem.message, {
    hint: 'take the lines from the edge: postern-edge ca ssh show',
    cause: problem,
  })
}

function linesOfBoth({ userCas, hostCas }: ServerCas): Pick<SetupWishes, 'userCas' | 'hostCas'> {
  return { userCas: linesOf(userCas), hostCas: hostCas ? linesOf(hostCas) : [] }
}

/** sshd wants a list from the first moment on. An edge of before there was one has revoked nothing. */
async function fetchFirstKrl({ edge, userCas, tellStep }: SetupWishes): Promise<Buffer> {
  try {
    return await fetchKrl(edge, userCas)
  } catch (error) {
    if (!(error instanceof PosternError) || error.code !== 'NOT_FOUND') throw error
    tellStep('this edge gives no list of revoked certificates yet: an empty one stands in for it')
    return EMPTY_KRL
  }
}

/** None where the edge certifies no servers, or sshd shows certificates of somebody else already. */
async function issueHostCertificates(
  { files, edge, serviceHost, hostCas, tellStep }: SetupWishes,
  layout: SshdLayout,
): Promise<IssuedHostCertificate[]> {
  if (hostCas.length === 0) return []
  const config = await readEffectiveConfig(files, userInfo().username)
  if ((config.get('hostcertificate') ?? []).length > 0) {
    tellStep('sshd has host certificates already: they stay as they are')
    return []
  }
  const hostKeys = findHostKeys(config, layout)
  return requestHostCertificates(edge, { serviceHost, hostCas, hostKeys })
}

function stateOf(
  wishes: SetupWishes,
  plan: Awaited<ReturnType<typeof planSetup>>,
  cas: ServerCas,
): SetupState {
  const { edge, files, serviceHost, users, reloadCommand, scheduler } = wishes
  const { origin, domain, caPem } = edge
  return {
    ...{ serviceHost, users: [...users], scheduler, ...files, ...cas },
    ...signingCasOf(cas, edgeNow(edge)),
    ...(reloadCommand === undefined ? {} : { reloadCommand }),
    edge: { origin, domain, ...(caPem === undefined ? {} : { caPem }) },
    edgeFolder: edge.folder,
    dropInFile: plan.dropInFile,
    files: plan.system.map(({ file, text }) => planChange(file, text)),
    confirmBy: Date.now() + wishes.confirmWithinMs,
    confirmed: false,
  }
}

/** Those who are to get in, and those who would have to repair it. */
async function usersToKeep(users: readonly string[]): Promise<string[]> {
  const candidates = new Set([...users, userInfo().username, 'root', process.env.SUDO_USER ?? 'root'])
  const accounts = await Promise.all([...candidates].map((user) => readAccount(user)))
  return [...candidates].filter((_user, index) => accounts[index] !== undefined)
}

function makeFolders(layout: SshdLayout): void {
  for (const folder of [layout.folder, layout.principalsFolder, layout.certificateFolder]) {
    mkdirSync(folder, { recursive: true })
    chmodSync(folder, 0o755) // sshd reads principals as the user who signs in
  }
}

/** @throws SSHD_SETUP_FAILED */
function refuseSecondSetup(layout: SshdLayout): void {
  const state = readState(layout)
  if (state) {
    const hint = state.confirmed
      ? 'to change it, take it back first: postern sshd setup --undo'
      : 'keep it: postern sshd setup --confirm, or take it back: postern sshd setup --undo'
    throw new PosternError('SSHD_SETUP_FAILED', `sshd is set up for ${state.serviceHost} already`, { hint })
  }
  const leftOver =
    existsSync(layout.folder) && readdirSync(layout.folder).some((name) => !OWN_NAMES.has(name))
  if (!leftOver) return
  throw new PosternError(
    'SSHD_SETUP_FAILED',
    `${layout.folder} is there already, and is not a setup of ours`,
    {
      hint: 'look at it, and move it away',
    },
  )
}

/** What a setup may leave that was killed before it changed anything. */
const OWN_NAMES: ReadonlySet<string> = new Set(
  'lock principals host-certificates user-ca.pub revoked.krl untried.krl undo-timer'.split(' '),
)

async function requireAccount(user: string): Promise<void> {
  if (await readAccount(user)) return
  throw new PosternError('SSHD_SETUP_FAILED', `there is no local user ${user}`, {
    hint: 'name those who sign in on this machine: --user ubuntu',
  })
}
