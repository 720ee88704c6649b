import { parseDuration } from '@postern/shared/duration'
import { parseEmailAddress } from '@postern/shared/email'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { lockPerson, unlockPerson } from '../api/live-api.ts'
import { callSignedIn } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { pickEdge } from '../credentials/known-edge.ts'
import { printJson, tell } from '../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'
import { printReceipt } from './receipt.ts'

interface LockOptions extends AskOptions {
  until?: string
  reason: string
  edge?: string
  json?: boolean
}

async function runLock(identity: string, options: LockOptions): Promise<void> {
  const email = parseEmailAddress(identity)
  const { reason } = options
  const edge = pickEdge(stateFolder(), options.edge)
  const receipt = await callSignedIn(edge, loginPolicy(options), (api, session) => {
    const until = options.until === undefined ? undefined : readEnd(options.until, api.now())
    return lockPerson(api, session, { email, until, reason })
  })
  if (!options.json) tell(`${email} is locked`)
  await printReceipt(receipt, options)
}

async function runUnlock(identity: string, options: LockOptions): Promise<void> {
  const email = parseEmailAddress(identity)
  const edge = pickEdge(stateFolder(), options.edge)
  await callSignedIn(edge, loginPolicy(options), (api, session) => unlockPerson(api, session, email))
  if (options.json) return printJson({ unlocked: email })
  tell(`${email} is not locked any more`)
}

/** A moment, or a duration from now. @throws USAGE_INVALID */
function readEnd(text: string, now: number): number {
  if (/^\d+[a-z]+$/.test(text)) return Math.round(now + parseDuration(text))
  const moment = Date.parse(text)
  if (!Number.isNaN(moment)) return moment
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is neither a moment nor a duration`, {
    hint: 'write it as 2026-07-01T18:00:00+02:00, or 8h from now',
  })
}

export function addLock(program: Command): void {
  const command = program
    .command('lock')
    .description('refuse a person everywhere: sign-in, certificates and flows; live flows end now')
    .argument('<identity>', 'their email address')
    .option('--until <moment>', '2026-07-01T18:00:00+02:00, or 8h from now; left out: until postern unlock')
    .requiredOption('--reason <text>', 'for administrators and auditors')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
  addAskOptions(command).action(runLock)
  addExamples(command, [
    ['a laptop is missing', 'postern lock dev@mycorp.com --until 24h --reason "laptop is missing"'],
  ])
}

export function addUnlock(program: Command): void {
  const command = program
    .command('unlock')
    .description('end the lock of a person')
    .argument('<identity>', 'their email address')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
  addAskOptions(command).action(runUnlock)
  addExamples(command, [['it was found', 'postern unlock dev@mycorp.com']])
}
