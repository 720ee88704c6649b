import { type PosternError, toPosternError } from '@postern/shared/errors'
import { unreadableFile } from '@postern/shared/unreadable-file'
import type { Changing } from '../connector/changing.ts'
import type { ConnectorEvent, Report } from '../connector/events.ts'
import { type Begun, serveService } from '../connector/serve-service.ts'
import { ServiceSet } from '../connector/service-set.ts'
import type { ServiceSettings } from '../connector/service-settings.ts'
import type { LoginPolicy } from '../credentials/fresh.ts'
import { explainProblems } from '../entry-file.ts'
import { type ReportedProblem, reasonOf } from '../events.ts'
import { WatchedFile } from '../watched-file.ts'
import { parseServicesFile } from './services-file.ts'
import { checkAllowList, startConnector } from './start-connector.ts'

interface Run {
  policy: LoginPolicy
  report: Report
  signal: AbortSignal
  /** Hears each SIGHUP. */
  onReload(reload: () => void): void
}

/** `postern connect -f`: all that the file lists is started, or nothing is; from then on what goes wrong with one is no
 *  matter of the others. Ends by itself when the edge wants none of them any more.
 *  @throws what kept them from starting, or the reason of the last one that the edge ended */
export async function connectAll(file: string, { policy, report, signal, onReload }: Run): Promise<void> {
  const nothingLeft = new AbortController()
  const isOver = AbortSignal.any([signal, nothingLeft.signal])
  const services = new ServiceSet({
    start: (settings, isFirst) =>
      startConnector(settings, isFirst ? policy : { ...policy, mayAsk: false }, reportOf(settings, report)),
    serve: (begun, settings, on) => serveOne(begun, settings, { report, signal, ...on }),
    onNoneLeft: (reason) => nothingLeft.abort(reason),
  })
  const watched = new WatchedFile(file)
  const { entries, problems } = parseServicesFile(watched.readNamed(), file)
  if (problems.length === 0) problems.push(...(await services.begin(entries)))
  if (problems.length > 0) throw explainProblems(file, problems)
  onReload(() => watched.lookAgain())
  const tellFailed = (found: ReportedProblem[]) =>
    report({ event: 'reload.failed', file, services: services.size, problems: found })
  await watched.follow({
    signal: isOver,
    async onText(text) {
      const changed = parseServicesFile(text, file)
      const found = changed.problems
      found.push(...(await services.change(changed.entries, found.length === 0)))
      if (found.length === 0) report({ event: 'reloaded', file, services: services.size })
      else tellFailed(found.map(({ line, error }) => ({ line, ...reasonOf(error) })))
    },
    onLost: (cause) => tellFailed([reasonOf(unreadableFile(file, cause))]),
  })
  await services.over()
  if (nothingLeft.signal.aborted) throw nothingLeft.signal.reason
}

/** @returns why the edge has ended it */
async function serveOne(
  begun: Begun,
  settings: Changing<ServiceSettings>,
  {
    report,
    signal,
    leaving,
    ready,
  }: Omit<Run, 'policy' | 'onReload'> & { leaving: AbortSignal; ready: () => void },
): Promise<PosternError | undefined> {
  const { value } = settings.now
  const tellOf = reportOf(value, report)
  const hear: Report = (event) => {
    tellOf(event)
    if (event.event === 'ready') ready()
  }
  try {
    const checkService = checkAllowList(value)
    await serveService(begun, settings, { report: hear, signal, leaving, checkService })
    if (!signal.aborted) tellOf({ event: 'service.left' })
    return undefined
  } catch (caught) {
    const error = toPosternError(caught, 'INTERNAL', String(caught))
    tellOf({ event: 'service.ended', ...reasonOf(error) })
    return error
  }
}

function reportOf({ name }: ServiceSettings, report: Report): Report {
  return (event: ConnectorEvent) => report({ ...event, name })
}
