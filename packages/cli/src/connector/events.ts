import { formatDuration } from '@postern/shared/duration'
import { type ErrorCode, PosternError } from '@postern/shared/errors'
import { type AllowList, describeAllowList } from '@postern/shared/identity'
import { type FlowTraffic, type Reason, type ReportedProblem, tellProblems } from '../events.ts'
import { printable, tell, tellError, tellMore } from '../io.ts'

/** What a connector tells: lines for people on stderr, or one JSON object per line on stdout. */
export type ConnectorEvent = {
  /** Of the service, where the command runs several. */ name?: string
} & Happening

type Happening =
  | { event: 'enrolled'; host: string; connectorId: string; tokenFile: string }
  | ({ event: 'ready'; connectorId: string } & Ready)
  | { event: 'flow.opened'; flowId: string; email: string; clientAddress: string }
  | ({
      event: 'flow.closed'
      flowId: string
      email: string
      clientAddress: string
      /** Where the service was looked for, and what was there instead. */ found?: string | undefined
    } & FlowTraffic)
  /** With a hint where somebody has to do something. */
  | { event: 'disconnected'; code: string; message: string; hint?: string; retryInMs: number }
  | { event: 'reconnected'; host: string }
  | { event: 'renewed'; notAfter: number }
  | { event: 'renewal.failed'; code: string; message: string }
  | { event: 'host-keys.reported'; keys: number }
  | { event: 'host-keys.failed'; code: string; message: string }
  | { event: 'target.down'; code: string; message: string; found?: string | undefined }
  | { event: 'target.up' }
  | { event: 'service.left' }
  | ({ event: 'service.ended'; code: ErrorCode } & Reason)
  | { event: 'reloaded'; file: string; services: number }
  | { event: 'reload.failed'; file: string; services: number; problems: ReportedProblem[] }

export interface ServiceFacts {
  id: string
  label: string
  name: string
  host: string
  allow: AllowList
}

interface Ready {
  host: string
  edge: string
  /** Left out where the edge has a certificate of a public CA. */
  caFingerprint?: string | undefined
  service: ServiceFacts
}

export type Report = (event: ConnectorEvent) => void

export const reportToPeople: Report = (event) => {
  const say = (message: string) =>
    tell(event.name === undefined ? message : `${printable(event.name)}: ${message}`)
  switch (event.event) {
    case 'enrolled':
      return say(
        `this machine is a connector of ${printable(event.host)} now; ${printable(event.tokenFile)} is used up and can be removed`,
      )
    case 'ready':
      return event.name === undefined ? tellReady(event) : say(`ready at ${printable(event.host)}`)
    case 'flow.opened':
      return say(`${describeFlow(event)} came in`)
    case 'flow.closed':
      return say(`${describeFlow(event)} left after ${describeTraffic(event)}`)
    case 'disconnected':
      say(
        `lost the edge: ${printable(event.message)} (${event.code}); next try in ${(event.retryInMs / 1_000).toFixed(1)} s`,
      )
      return event.hint === undefined ? undefined : tellMore(printable(event.hint))
    case 'reconnected':
      return say(`back at the edge: ${printable(event.host)} is ready`)
    case 'renewed':
      return say(`renewed the connector's certificate, until ${new Date(event.notAfter).toISOString()}`)
    case 'renewal.failed':
      return say(
        `could not renew the connector's certificate yet: ${printable(event.message)} (${event.code})`,
      )
    case 'host-keys.reported':
      return say(`the edge knows the ${event.keys} host keys of this ssh server`)
    case 'host-keys.failed':
      return say(`the host keys are not on record: ${printable(event.message)} (${event.code})`)
    case 'target.down':
      return say(`the service is down: ${printable(event.found ?? event.message)} (${event.code})`)
    case 'target.up':
      return say('the service is back')
    case 'service.left':
      return say('has left; the service stays, offline')
    case 'service.ended':
      return tellError(new PosternError(event.code, `${event.name}: ${event.message}`, { hint: event.hint }))
    case 'reloaded':
      return tell(`read ${printable(event.file)} again: ${countServices(event.services)}`)
    case 'reload.failed':
      tellProblems(event.file, event.problems)
      return tell(
        `what else stands there is in force, and nothing has left: ${countServices(event.services)}`,
      )
  }
}

function tellReady({ host, edge, caFingerprint, service }: Ready): void {
  const name = printable(host)
  tell(`${printable(service.name)} is ready at ${name}`)
  tellMore(`admits  ${printable(describeAllowList(service.allow))}`)
  const ca = caFingerprint === undefined ? '' : ` --ca-fingerprint ${caFingerprint}`
  tellMore(`once    postern login --edge ${edge}${ca}`)
  tellMore(`ssh     ssh -o 'ProxyCommand=postern client tls --host %h' USER@${name}`)
  tellMore(`pipe    postern client tls --host ${name}`)
  tellMore('Ctrl-C stops the connector; the service stays, offline')
}

function countServices(count: number): string {
  return count === 1 ? '1 service' : `${count} services`
}

function describeFlow(flow: { email: string; clientAddress: string }): string {
  return `${printable(flow.email)} from ${printable(flow.clientAddress)}`
}

function describeTraffic(traffic: FlowTraffic & { found?: string | undefined }): string {
  const bytes = `${formatBytes(traffic.bytesUp)} in, ${formatBytes(traffic.bytesDown)} out`
  const cut = traffic.error ? `, cut (${traffic.error})` : ''
  return `${formatDuration(traffic.durationMs)}, ${bytes}${cut}${traffic.found ? `: ${printable(traffic.found)}` : ''}`
}

function formatBytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = count
  let unit = 0
  while (value >= 1_000 && unit < units.length - 1) {
    value /= 1_000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}
