import type { Server } from 'node:net'
import { toPosternError } from '@postern/shared/errors'
import type { Problem } from '../entry-file.ts'
import type { ListenerEntry } from './listeners-file.ts'
import { formatLocal } from './local-place.ts'
import { openListener } from './open-listener.ts'

/** The listeners of a file. What stays in it is not touched by a change of the rest; what goes takes no new connection,
 *  and those that run may end by themselves. */

type Serve = (server: Server, entry: ListenerEntry) => Promise<void>

interface Running {
  entry: ListenerEntry
  server: Server
}

export class ListenerSet {
  readonly #serve: Serve
  readonly #running = new Map<string, Running>()
  readonly #serving = new Set<Promise<void>>()

  /** @param serve runs until the listener is over. Never rejects */
  constructor(serve: Serve) {
    this.#serve = serve
  }

  get size(): number {
    return this.#running.size
  }

  /** All of them, or none.
   *  @returns what kept any of them from being opened */
  async begin(entries: readonly ListenerEntry[]): Promise<Problem[]> {
    const { opened, problems } = await openAll(entries)
    if (problems.length > 0) for (const { server } of opened) server.close()
    else for (const one of opened) this.#start(one)
    return problems
  }

  /** @param isWhole nothing is wrong with the file: what is not in it any more has been taken out on purpose
   *  @returns what kept new ones from being opened; the others are there */
  async change(entries: readonly ListenerEntry[], isWhole: boolean): Promise<Problem[]> {
    const wanted = new Set(entries.map(identify))
    const places = new Set(entries.map(({ local }) => formatLocal(local)))
    for (const [id, { entry, server }] of this.#running) {
      const isReplaced = !wanted.has(id) && places.has(formatLocal(entry.local))
      if (isReplaced || (isWhole && !wanted.has(id))) {
        server.close()
        this.#running.delete(id)
      }
    }
    const { opened, problems } = await openAll(entries.filter((entry) => !this.#running.has(identify(entry))))
    for (const one of opened) this.#start(one)
    return problems
  }

  /** Settles when the last one is over, removed ones too. */
  async over(): Promise<void> {
    await Promise.all(this.#serving)
  }

  #start({ entry, server }: Running): void {
    this.#running.set(identify(entry), { entry, server })
    const serving = this.#serve(server, entry).finally(() => this.#serving.delete(serving))
    this.#serving.add(serving)
  }
}

async function openAll(
  entries: readonly ListenerEntry[],
): Promise<{ opened: Running[]; problems: Problem[] }> {
  const opened: Running[] = []
  const problems: Problem[] = []
  for (const entry of entries) {
    try {
      opened.push({ entry, server: await openListener(entry.local) })
    } catch (caught) {
      problems.push({ line: entry.line, error: toPosternError(caught, 'INTERNAL', String(caught)) })
    }
  }
  return { opened, problems }
}

/** Everything that a listener is made of; the line in the file is no part of it. */
function identify({ place, local, unsafeAnyLocalUser }: ListenerEntry): string {
  return JSON.stringify([place.host, place.edge.origin, formatLocal(local), unsafeAnyLocalUser])
}
