/** Lets a few in with each turn of the event loop: in the order of their coming, and of those who want to different
 *  places by turns. Those who are in get their answers before others begin: where thousands come at once, each is done
 *  soon after its beginning, none has been worked for in vain when its patience ends, and who wants to another place
 *  does not stand behind them. */
export class Turnstile<Who> {
  readonly #perTurn: number
  /** Who waits, by the place they want to. None is empty. */
  readonly #lanes = new Map<string, Map<Who, () => void>>()
  #left: number
  #turn: NodeJS.Immediate | undefined

  constructor(perTurn: number) {
    this.#perTurn = perTurn
    this.#left = perTurn
  }

  /** Calls `enter`, at once where there is room. */
  pass(place: string, who: Who, enter: () => void): void {
    this.#turn ??= setImmediate(() => this.#begin())
    if (this.#left === 0) {
      const lane = this.#lanes.get(place) ?? new Map<Who, () => void>()
      this.#lanes.set(place, lane.set(who, enter))
      return
    }
    this.#left -= 1
    enter()
  }

  /** The last of those who want to where most want to. */
  get lastOfMost(): Who | undefined {
    const most = [...this.#lanes.values()].reduce<Map<Who, unknown> | undefined>(
      (found, lane) => (found && found.size >= lane.size ? found : lane),
      undefined,
    )
    return most && [...most.keys()].at(-1)
  }

  leave(who: Who): void {
    for (const place of this.#lanes.keys()) this.#take(place, who)
  }

  #begin(): void {
    this.#left = this.#perTurn
    this.#turn = this.#lanes.size > 0 ? setImmediate(() => this.#begin()) : undefined
    while (this.#lanes.size > 0) {
      for (const [place, lane] of this.#lanes) {
        if (this.#left === 0) return
        const [[who, enter]] = lane as unknown as [[Who, () => void]]
        this.#take(place, who)
        this.#left -= 1
        enter()
      }
    }
  }

  #take(place: string, who: Who): void {
    const lane = this.#lanes.get(place)
    if (lane?.delete(who) && lane.size === 0) this.#lanes.delete(place)
  }
}
