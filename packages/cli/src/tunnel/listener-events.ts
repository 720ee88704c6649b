import { type ERRORS, PosternError } from '@postern/shared/errors'
import type { SignInEvent } from '../credentials/live-certificate.ts'
import type { FlowTraffic } from '../events.ts'
import { printable, tell, tellError, tellMore } from '../io.ts'

/** What a listener tells: lines for people on stderr, or one JSON object per line on stdout. */
export type ListenerEvent =
  | { event: 'ready'; host: string; address: string; port: number; edge: string }
  | { event: 'flow.opened'; flowId: string; from: string }
  | ({ event: 'flow.closed' } & ClosedFlow)
  | ({ event: 'flow.refused'; from: string; flowId?: string } & Failure)
  | { event: 'user.refused'; code: string; message: string; connections: number }
  | { event: 'renewed'; notAfter: number }
  | SignInEvent

interface ClosedFlow extends FlowTraffic {
  flowId: string
  from: string
  /** With `error`: who ended it in the middle. */
  cutBy?: 'program' | 'service' | 'listener'
}

interface Failure {
  code: keyof typeof ERRORS
  message: string
  hint: string
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
      return tellClosed(event)
    case 'flow.refused':
      return tellError(errorOf(event))
    case 'user.refused':
      return tell(`${printable(event.message)} (${event.code})${describeCount(event.connections)}`)
    case 'sign-in.needed':
      return tell(`${printable(event.message)}: new connections wait for the sign-in (${event.code})`)
    case 'sign-in.failed':
      tell(`the sign-in failed: ${printable(event.message)} (${event.code})`)
      return tellMore('new connections are refused until: postern login')
  }
}

function tellReady({ host, address, port }: { host: string; address: string; port: number }): void {
  tell(`${printable(host)} is at ${address.includes(':') ? `[${address}]` : address}:${port}`)
  tellMore('Ctrl-C ends it, with all connections through it')
}

/** A program that leaves in the middle has its reasons. */
function tellClosed({ flowId, from, error, cutBy }: ClosedFlow): void {
  if (cutBy !== 'service') return
  tell(`the connection of ${from} was cut (${error})`)
  tellMore(`more: postern explain ${printable(flowId)}`)
}

function errorOf({ code, message, hint, flowId }: Failure & { flowId?: string }): PosternError {
  return new PosternError(code, message, { hint, ...(flowId ? { details: { flowId } } : {}) })
}

function describeCount(connections: number): string {
  return connections > 1 ? `, ${connections} connections` : ''
}
