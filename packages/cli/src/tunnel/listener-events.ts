import { type ErrorCode, PosternError } from '@postern/shared/errors'
import type { SignInEvent } from '../credentials/live-certificate.ts'
import { type FlowTraffic, type Reason, type ReportedProblem, tellProblems } from '../events.ts'
import { printable, tell, tellError, tellMore } from '../io.ts'
import { formatLocal, type LocalPlace } from './local-place.ts'

/** What a listener tells: lines for people on stderr, or one JSON object per line on stdout. */
export type ListenerEvent =
  | ({ event: 'ready'; host: string; edge: string } & LocalPlace)
  | { event: 'flow.opened'; flowId: string; host: string; from: string }
  | ({ event: 'flow.closed'; flowId: string; host: string; from: string } & FlowTraffic & Partial<Cut>)
  | ({ event: 'flow.refused'; host: string; from: string; flowId?: string; code: ErrorCode } & Reason)
  | ({ event: 'user.refused'; code: ErrorCode; connections: number } & Reason)
  | ({ event: 'listener.waiting'; host: string; edge: string; code: ErrorCode } & LocalPlace & Reason)
  | { event: 'reloaded'; file: string; listeners: number }
  | { event: 'reload.failed'; file: string; listeners: number; problems: ReportedProblem[] }
  | { event: 'renewed'; host: string; notAfter: number }
  | SignInEvent

type RefusedUser = Extract<ListenerEvent, { event: 'user.refused' }>

/** Of a flow that ended in the middle, beside the code in `error`. */
interface Cut extends Reason {
  error: ErrorCode
  cutBy: 'program' | 'service' | 'listener'
}

export type Report = (event: ListenerEvent) => void

/** What went well is nobody's business: a pool of a database opens and closes connections all day. */
export const reportToPeople: Report = (event) => {
  switch (event.event) {
    case 'ready':
      return tellReady(event)
    case 'flow.opened':
    case 'renewed':
      return
    case 'flow.closed':
      // a program that leaves in the middle has its reasons
      return event.cutBy === 'service' ? tellFailure({ ...event, code: event.error! }) : undefined
    case 'flow.refused':
      return tellFailure(event)
    case 'listener.waiting':
      tell(
        `${printable(event.host)} is at ${printable(formatLocal(event))}, and refuses connections for now:`,
      )
      return tellFailure(event)
    case 'reloaded':
      return tell(`read ${printable(event.file)} again: ${countListeners(event.listeners)}`)
    case 'reload.failed':
      tellProblems(event.file, event.problems)
      return tell(
        `what else stands there is in force, and nothing was ended: ${countListeners(event.listeners)}`,
      )
    case 'user.refused':
      return tellRefusedUser(event)
    case 'sign-in.needed':
      return tell(`${printable(event.message)}: new connections wait for the sign-in (${event.code})`)
    case 'sign-in.failed':
      tell(`the sign-in failed: ${printable(event.message)} (${event.code})`)
      return tellMore('new connections are refused until: postern login')
  }
}

function tellReady({ host, ...place }: { host: string } & LocalPlace): void {
  tell(`${printable(host)} is at ${printable(formatLocal(place))}`)
  tellMore('Ctrl-C ends it, with all connections through it')
}

export function countListeners(count: number): string {
  return count === 1 ? '1 listener' : `${count} listeners`
}

function tellRefusedUser({ code, message, hint, connections }: RefusedUser): void {
  const count = connections > 1 ? `, ${connections} connections` : ''
  tell(`${printable(message)} (${code})${count}`)
  tellMore(printable(hint))
}

function tellFailure(failure: { code: ErrorCode; flowId?: string } & Partial<Reason>): void {
  const { code, message = '', hint = '', flowId } = failure
  tellError(new PosternError(code, message, { hint, ...(flowId ? { details: { flowId } } : {}) }))
}
