import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import {
  type Entries,
  type Entry,
  type EntryShape,
  explainProblems,
  type Problem,
  parseEntries,
} from '../entry-file.ts'
import { WatchedFile } from '../watched-file.ts'
import { formatLocal, type LocalPlace, parseLocal, refusePublicAddress } from './local-place.ts'
import type { ServicePlace } from './service-flow.ts'

/** `listeners.yaml`: several services at places of this machine. */

export interface ListenerEntry {
  line: number
  place: ServicePlace
  local: LocalPlace
  unsafeAnyLocalUser: boolean
}

const SHAPE: EntryShape = {
  host: 'text',
  local: 'place',
  edge: 'text?',
  unsafe_any_local_user: 'flag?',
  unsafe_listen_all: 'flag?',
}

/** Which edge serves a host.
 *  @throws EDGE_UNKNOWN · USAGE_INVALID */
export type FindPlace = (wanted: { host: string; edge?: string }) => ServicePlace

/** For a start: all of it, or nothing.
 *  @throws USAGE_INVALID when it cannot be read · the code of the first problem, with all of them */
export function readListeners(
  file: string,
  findPlace: FindPlace,
  watched: WatchedFile = new WatchedFile(file),
): ListenerEntry[] {
  const { entries, problems } = parseListenersFile(watched.readNamed(), file, findPlace)
  if (problems.length > 0) throw explainProblems(file, problems)
  return entries
}

/** @param file where relative paths of sockets begin */
export function parseListenersFile(text: string, file: string, findPlace: FindPlace): Entries<ListenerEntry> {
  const folder = path.dirname(path.resolve(file))
  return parseEntries(text, {
    ...{ list: 'listeners', shape: SHAPE, code: 'LISTENERS_INVALID' },
    read: (entry) => readListener(entry, folder, findPlace),
    compare: findTwice,
  })
}

function readListener({ line, values }: Entry, folder: string, findPlace: FindPlace): ListenerEntry {
  const { host, edge } = values as { host: string; edge?: string }
  const local = parseLocal(String(values.local), folder)
  if ('port' in local && local.port === 0) {
    throw new PosternError(
      'LISTENERS_INVALID',
      'an entry names its port: nobody would know which one 0 became',
    )
  }
  if (values.unsafe_listen_all !== true) refusePublicAddress(local, 'unsafe_listen_all: true')
  const place = findPlace({ host, ...(edge === undefined ? {} : { edge }) })
  return { line, place, local, unsafeAnyLocalUser: values.unsafe_any_local_user === true }
}

/** Two entries at one place: neither is the right one. */
function findTwice(entries: readonly ListenerEntry[]): Problem[] {
  const at = Map.groupBy(entries, ({ local }) => formatLocal(local))
  return [...at].flatMap(([place, [first, ...more]]) =>
    more.map(({ line }) => ({ line, error: takenTwice(place, first!.line) })),
  )
}

function takenTwice(place: string, line: number): PosternError {
  return new PosternError('LISTENERS_INVALID', `${place} is taken by the entry of line ${line} already`)
}
