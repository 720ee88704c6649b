import { unreadableFile } from '@postern/shared/unreadable-file'
import { explainProblems } from '../../entry-file.ts'
import { type ReportedProblem, reasonOf } from '../../events.ts'
import { serveListener } from '../../tunnel/listener.ts'
import { countListeners } from '../../tunnel/listener-events.ts'
import { ListenerSet } from '../../tunnel/listener-set.ts'
import {
  type FindPlace,
  type ListenerEntry,
  parseListenersFile,
  readListeners,
} from '../../tunnel/listeners-file.ts'
import { WatchedFile } from '../../watched-file.ts'
import { parseEdgeOrigin } from '../options.ts'
import type { Run } from './listen.ts'
import { findService } from './tls.ts'

/** `postern client listen -f`. Loaded when it is asked for: the rest of the command line needs no YAML. */

/** All that the file lists is opened, or nothing is; from then on what goes wrong with one is no matter of the others. */
export async function listenAtAll(file: string, run: Run): Promise<void> {
  const { certificates, report, signal } = run
  const listeners = new ListenerSet((server, { place, unsafeAnyLocalUser }, handedOver) => {
    const certificate = certificates.of(place)
    const parts = {
      place,
      certificate,
      unsafeAnyLocalUser,
      report,
      signal,
      handedOver,
      staysWhenRefused: true,
    }
    return serveListener(server, parts)
  })
  const watched = new WatchedFile(file)
  const problems = await listeners.begin(readListenersOf(file, watched))
  if (problems.length > 0) throw explainProblems(file, problems)
  run.manager.ready(countListeners(listeners.size))
  run.onReload(() => watched.lookAgain())
  await followFile(watched, file, { listeners, ...run })
  await Promise.all([listeners.over(), run.manager.stopping()])
}

/** Until the signal aborts. */
function followFile(
  watched: WatchedFile,
  file: string,
  { listeners, report, signal, manager }: Run & { listeners: ListenerSet },
): Promise<void> {
  const tellFailed = (problems: ReportedProblem[]) =>
    report({ event: 'reload.failed', file, listeners: listeners.size, problems })
  return watched.follow({
    signal,
    async onText(text) {
      manager.reloading()
      const { entries, problems } = parseListenersFile(text, file, findListenerPlace)
      problems.push(...(await listeners.change(entries, problems.length === 0)))
      manager.ready(countListeners(listeners.size))
      if (problems.length === 0) report({ event: 'reloaded', file, listeners: listeners.size })
      else tellFailed(problems.map(({ line, error }) => ({ line, ...reasonOf(error) })))
    },
    onLost: (cause) => tellFailed([reasonOf(unreadableFile(file, cause))]),
  })
}

/** What is wrong with any of it keeps all of it from starting.
 *  @throws as readListeners */
export function readListenersOf(file: string, watched: WatchedFile = new WatchedFile(file)): ListenerEntry[] {
  return readListeners(file, findListenerPlace, watched)
}

/** Through the edge that serves the host. */
const findListenerPlace: FindPlace = ({ host, edge }) => {
  return findService({ host, edge: edge === undefined ? undefined : parseEdgeOrigin(edge) })
}
