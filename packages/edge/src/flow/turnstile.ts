/** Lets a few in with each turn of the event loop, in the order of their coming. Those who are in get their answers
 *  before others begin: where thousands come at once, each is done soon after its beginning, and none has been
 *  worked for in vain when its patience ends. */
export class Turnstile<Who> {
  readonly #perTurn: number
  readonly #waiting = new Map<Who, () => void>()
  #left: number
  #turn: NodeJS.Immediate | undefined

  constructor(perTurn: number) {
    this.#perTurn = perTurn
    this.#left = perTurn
  }

  /** Calls `enter`, at once where nobody waits. */
  pass(who: Who, enter: () => void): void {
    this.#turn ??= setImmediate(() => this.#begin())
    if (this.#left === 0) return void this.#waiting.set(who, enter)
    this.#left -= 1
    enter()
  }

  leave(who: Who): void {
    this.#waiting.delete(who)
  }

  #begin(): void {
    this.#left = this.#perTurn
    this.#turn = this.#waiting.size > 0 ? setImmediate(() => this.#begin()) : undefined
    for (const [who, enter] of this.#waiting) {
      if (this.#left === 0) return
      this.#waiting.delete(who)
      this.#left -= 1
      enter()
    }
  }
}
