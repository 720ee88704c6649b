import { readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { formatSshPublicKey, parseSshPublicKey } from '@postern/shared/certs/ssh-key'
import { parseSshPrincipal } from '@postern/shared/certs/ssh-principals'
import { formatDuration, parseDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { unreadableFile } from '@postern/shared/unreadable-file'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { stateFolder } from '../../credentials/home.ts'
import { findEdgeOfHost, type KnownEdge } from '../../credentials/known-edge.ts'
import { print, printable, printJson, tell, tellMore } from '../../io.ts'
import { layoutOf, parseLocalUser } from '../../sshd/drop-in.ts'
import { findReloadCommands } from '../../sshd/reload.ts'
import { requireProgram } from '../../sshd/run-program.ts'
import {
  commandLine,
  detectScheduler,
  parseScheduler,
  SCHEDULE_FOLDERS,
  type Scheduler,
  scheduleCommands,
} from '../../sshd/schedule.ts'
import { planSetup, type SetupWishes, setUpSshd } from '../../sshd/setup.ts'
import { confirmSetup, undoSetup, undoUnlessConfirmed } from '../../sshd/undo.ts'
import { type AskOptions, addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { collectList, parseEdgeOrigin } from '../options.ts'
import { reachService } from '../service/reach.ts'

/** `postern sshd setup`: makes this machine's sshd admit certificates of one service. */

interface SetupOptions extends AskOptions {
  host?: string
  user?: string[]
  principal?: string[]
  userCa?: string
  hostCa?: string
  sshdConfig: string
  sshd?: string
  reloadCommand?: string
  confirmWithin?: number
  scheduler?: Scheduler
  edge?: string
  dryRun?: boolean
  json?: boolean
  confirm?: boolean
  undo?: boolean
  /** Hidden: how the process that takes it back is started. */
  unlessConfirmedWithin?: number
}

async function runSetup(options: SetupOptions): Promise<void> {
  if (options.confirm && options.undo) throw new PosternError('USAGE_INVALID', 'either --confirm or --undo')
  if (options.json && !options.dryRun) throw new PosternError('USAGE_INVALID', '--json belongs to --dry-run')
  const layout = layoutOf(options.sshdConfig)
  if (options.unlessConfirmedWithin !== undefined) {
    return undoUnlessConfirmed(layout, options.unlessConfirmedWithin)
  }
  if (options.undo) {
    const undone = await undoSetup(layout, options.reloadCommand)
    return tell(undone ? 'taken back: sshd is as it was before' : 'there is nothing to take back')
  }
  if (options.confirm) {
    const { serviceHost } = await confirmSetup(layout)
    return tell(`confirmed: this sshd admits certificates of ${printable(serviceHost)}`)
  }
  const wishes = await readWishes(options)
  if (options.dryRun) return printPlan(wishes, options)
  await setUpSshd(wishes)
  tellWhatIsNext(wishes, options)
}

async function readWishes(options: SetupOptions): Promise<SetupWishes> {
  if (options.host === undefined) {
    throw new PosternError('USAGE_INVALID', 'it is not said which service this machine is', {
      hint: 'name it: --host LABEL.DOMAIN, as postern connect shows it',
    })
  }
  const users = [...new Set(options.user ?? [defaultUser()])].map(parseLocalUser)
  const principals = (options.principal ?? []).map(parseSshPrincipal)
  const configFile = path.resolve(options.sshdConfig)
  const sshd = options.sshd === undefined ? requireProgram('sshd') : path.resolve(options.sshd)
  return {
    files: { sshd, configFile },
    ...(await readService(options.host, options)),
    ...{ users, principals },
    reloadCommand: options.reloadCommand,
    confirmWithinMs: options.confirmWithin ?? CONFIRM_WITHIN_MS,
    scheduler: options.scheduler ?? detectScheduler(),
    refreshCommand: [
      ...[process.execPath, process.argv[1]!],
      ...['sshd', 'refresh', '--quiet', '--sshd-config', configFile],
    ],
    tellStep: tell,
  }
}

interface ServiceFacts {
  edge: KnownEdge
  serviceHost: string
  userCas: string[]
  hostCas: string[]
}

/** From the edge with somebody's session; or from files, on a server that has a connector and nobody's session. */
async function readService(given: string, options: SetupOptions): Promise<ServiceFacts> {
  if (options.userCa !== undefined) {
    const { edge, host } = findEdgeOfHost(stateFolder(), given, { origin: options.edge })
    const hostCas = options.hostCa === undefined ? [] : readCas(options.hostCa)
    return { edge, serviceHost: host, userCas: readCas(options.userCa), hostCas }
  }
  const { edge, name } = reachService(given, options)
  const service = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.getService(session, name),
  )
  const { host: serviceHost, sshUserCa, sshHostCa } = service
  const hostCas = sshHostCa === '' ? [] : [canonical(sshHostCa)]
  return { edge, serviceHost, userCas: [canonical(sshUserCa)], hostCas }
}

/** While one CA takes over from the other there are two, one on a line. */
function readCas(file: string): string[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw unreadableFile(file, cause)
  }
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#'))
  if (lines.length > MAX_CAS)
    throw new PosternError('SSH_KEY_INVALID', `${file} has more than ${MAX_CAS} lines`)
  return lines.length === 0 ? [canonical(text)] : lines.map(canonical)
}

/** One key, without a comment: options in front of it would mean something to sshd. */
function canonical(line: string): string {
  return formatSshPublicKey(parseSshPublicKey(line))
}

function defaultUser(): string {
  const user = process.env.SUDO_USER ?? userInfo().username
  if (user !== 'root') return user
  throw new PosternError('USAGE_INVALID', 'it is not said whom certificates let in on this machine', {
    hint: 'name local users: --user ubuntu',
  })
}

async function printPlan(wishes: SetupWishes, { json }: SetupOptions): Promise<void> {
  const { ours, system } = await planSetup(wishes, [])
  const { files, reloadCommand, scheduler, serviceHost } = wishes
  const planned = [...ours, ...system]
  const commands = [
    ...(await findReloadCommands({ ...files, reloadCommand })),
    ...scheduleCommands(scheduler),
  ]
  if (json) await printJson({ host: serviceHost, files: planned, commands })
  else {
    const texts = planned.map(({ file, text }) => `==> ${file}\n${text}`)
    await print([...texts, ...commands.map((words) => `$ ${commandLine(words)}`), ''].join('\n'))
  }
  tell('nothing was changed; revoked certificates and host certificates come along when it is done')
}

function tellWhatIsNext(wishes: SetupWishes, options: SetupOptions): void {
  const where = options.sshdConfig === DEFAULT_CONFIG ? '' : ` --sshd-config ${options.sshdConfig}`
  const users = wishes.users.join(', ')
  tell(`this sshd now admits certificates of ${printable(wishes.serviceHost)} for ${users}`)
  tellMore(`sign in from another terminal, then keep it:  postern sshd setup --confirm${where}`)
  tellMore(`without that it is taken back in ${formatDuration(wishes.confirmWithinMs)} by itself`)
  tellMore(`take it back now or later:  postern sshd setup --undo${where}`)
  if (wishes.scheduler === 'none') {
    tellMore(`run this every minute, it brings revocations:  ${commandLine(wishes.refreshCommand)}`)
  } else {
    tellMore(`revocations come every minute, by ${wishes.scheduler} in ${SCHEDULE_FOLDERS[wishes.scheduler]}`)
  }
}

const MAX_CAS = 8
const CONFIRM_WITHIN_MS = 300_000
export const DEFAULT_CONFIG = '/etc/ssh/sshd_config'

export function addSshdSetup(parent: Command): void {
  const command = parent
    .command('setup')
    .description(
      "make this machine's sshd admit certificates of one service, and take it back unless confirmed",
    )
    .option('--host <host>', 'the service that leads here: its label or full host')
    .option(
      '--user <names>',
      'local users whom certificates let in (default: who runs it with sudo)',
      collectList,
    )
    .option('--principal <names>', "more names that let them in; the service's own always does", collectList)
    .option('--user-ca <file>', "the edge's SSH CA as a file, when nobody is signed in on this machine")
    .option('--host-ca <file>', "the edge's CA for ssh servers, likewise")
    .option('--sshd-config <file>', "sshd's main file", DEFAULT_CONFIG)
    .option('--sshd <program>', 'the sshd program (default: the one of this machine)')
    .option('--reload-command <command>', 'how to make sshd read its files again (default: found out)')
    .option(
      '--confirm-within <duration>',
      'taken back by itself after this (default: 5m)',
      parseConfirmWithin,
    )
    .option(
      '--scheduler <kind>',
      'what brings revocations: systemd, cron or none (default: found out)',
      parseScheduler,
    )
    .option('--dry-run', 'print what would be written and run, and change nothing')
    .option('--json', 'with --dry-run: print one JSON object')
    .option('--confirm', 'keep what was set up')
    .option('--undo', 'put everything back as it was')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
  command.addOption(
    command.createOption('--unless-confirmed-within <duration>').argParser(parseDuration).hideHelp(),
  )
  addAskOptions(command).action(runSetup)
  addExamples(command, [
    ['look first', 'sudo postern sshd setup --host crimson-thunder-8434 --user ubuntu --dry-run'],
    [
      'set up, then sign in from another terminal',
      'sudo postern sshd setup --host crimson-thunder-8434 --user ubuntu',
    ],
    ['keep it', 'sudo postern sshd setup --confirm'],
    ['put everything back', 'sudo postern sshd setup --undo'],
  ])
}

/** Long enough to sign in once, short enough to wait for. */
function parseConfirmWithin(text: string): number {
  const ms = parseDuration(text)
  if (ms >= 1_000 && ms <= 86_400_000) return ms
  throw new PosternError('USAGE_INVALID', `--confirm-within ${text} is not between 1s and 24h`)
}
