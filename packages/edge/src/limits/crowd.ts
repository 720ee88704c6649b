import type { Socket } from 'node:net'
import { networkOf } from './network.ts'

/** Connections of people nobody knows yet, the oldest first: all of them, and those of each address. */
export class Crowd {
  readonly #networks = new Map<Socket, string>()
  readonly #byNetwork = new Map<string, Set<Socket>>()

  get size(): number {
    return this.#networks.size
  }

  get oldest(): Socket | undefined {
    const [oldest] = this.#networks.keys()
    return oldest
  }

  add(socket: Socket, address: string): void {
    const network = networkOf(address)
    this.#networks.set(socket, network)
    this.#byNetwork.set(network, (this.#byNetwork.get(network) ?? new Set()).add(socket))
  }

  has(socket: Socket): boolean {
    return this.#networks.has(socket)
  }

  /** @returns whether it was in it */
  delete(socket: Socket): boolean {
    const network = this.#networks.get(socket)
    if (network === undefined) return false
    this.#networks.delete(socket)
    const neighbours = this.#byNetwork.get(network)!
    neighbours.delete(socket)
    if (neighbours.size === 0) this.#byNetwork.delete(network)
    return true
  }

  /** Those of this address, of whom one has to go before one more comes, when each address may have `max`.
   *  @returns none where there is room */
  full(address: string, max: number): Iterable<Socket> {
    const neighbours = this.#byNetwork.get(networkOf(address))
    return neighbours && neighbours.size >= max ? neighbours : []
  }

  [Symbol.iterator](): Iterator<Socket> {
    return this.#networks.keys()
  }
}
