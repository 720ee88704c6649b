import type { Server } from 'node:net'
import { toPosternError } from '@postern/shared/errors'
import type { Problem } from '../entry-file.ts'
import type { ListenerEntry } from './listeners-file.ts'
import { formatLocal } from './local-place.ts'
import { openListener } from './open-listener.ts'

/** The listeners of a file. What stays in it is not touched by a change of the rest; what goes takes no new connection,
 *  and those that run may end by themselves. */

type Serve = (server: Server, entry: ListenerEntry, handedOver: AbortSignal) => Promise<void>

interface Opened {
  entry: ListenerEntry
  server: Server
}

interface Running extends Opened {
  handOver: AbortController
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
    const placed = new Map(entries.map((entry) => [formatLocal(entry.local), entry]))
    for (const [id, { entry, server, handOver }] of [...this.#running]) {
      if (wanted.has(id)) continue
      const next = placed.get(formatLocal(entry.local))
      if (!next && !isWhole) continue
      this.#running.delete(id)
      if (next) {
        // closing it would reset those that wait to be taken
        handOver.abort()
        this.#start({ entry: next, server })
      } else {
        server.close()
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

  #start({ entry, server }: Opened): void {
    const handOver = new AbortController()
    this.#running.set(identify(entry), { entry, server, handOver })
    const serving = this.#serve(server, entry, handOver.signal).finally(() => this.#serving.delete(serving))
    this.#serving.add(serving)
  }
}

async function openAll(
  entries: readonly ListenerEntry[],
): Promise<{ opened: Opened[]; problems: Problem[] }> {
  const opened: Opened[] = []
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
