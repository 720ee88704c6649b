import type { Socket } from 'node:net'
import { Crowd } from './crowd.ts'

export interface GuestsOptions {
  /** At once. */
  max: number
  /** Of those, strangers of one address. */
  maxPerAddress: number
  /** Whether those who have shown who they are make room as well, once there is no stranger left. */
  settledMakeRoom: boolean
  /** Hears of each that has to go, before it does. */
  onCrowdedOut: (socket: Socket, reason: 'too_many' | 'too_many_of_address') => void
}

/** Connections of a place that holds so many. Where there is no room the oldest stranger goes: whoever is honest is done
 *  in a moment. Where one address has too many of them, its own. */
export class Guests {
  readonly #strangers = new Crowd()
  readonly #settled = new Crowd()
  readonly #options: GuestsOptions

  constructor(options: GuestsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#strangers.size + this.#settled.size
  }

  /** @returns false when there is no room, and nobody who could make it */
  enter(socket: Socket, address: string): boolean {
    const { max, maxPerAddress, settledMakeRoom } = this.#options
    const [neighbour] = this.#strangers.full(address, maxPerAddress)
    if (neighbour) this.#crowdOut(neighbour, 'too_many_of_address')
    else if (this.size >= max) {
      const oldest = this.#strangers.oldest ?? (settledMakeRoom ? this.#settled.oldest : undefined)
      if (!oldest) return false
      this.#crowdOut(oldest, 'too_many')
    }
    this.#strangers.add(socket, address)
    return true
  }

  /** Somebody has shown on this one who they are: it no longer makes room for the strangers of its address. */
  settle(socket: Socket, address: string): void {
    if (this.#strangers.delete(socket)) this.#settled.add(socket, address)
  }

  leave(socket: Socket): void {
    if (!this.#strangers.delete(socket)) this.#settled.delete(socket)
  }

  #crowdOut(socket: Socket, reason: 'too_many' | 'too_many_of_address'): void {
    this.#options.onCrowdedOut(socket, reason)
    this.leave(socket)
    socket.destroy()
  }
}
