/** One sign-in at a time for everything that a program needs of one edge: whoever comes while a person is asked waits
 *  for the same answer. */
export class SignInDesk {
  #asking: Promise<void> | undefined
  /** A sign-in that came to nothing is not asked for again by the next connection: programs repeat theirs by
   *  themselves, and each would open a page. `postern login` ends that. */
  #hasAskedInVain = false

  get isAsking(): boolean {
    return this.#asking !== undefined
  }

  get hasAskedInVain(): boolean {
    return this.#hasAskedInVain
  }

  /** Settles when nobody is asked any more. Never rejects. */
  async free(): Promise<void> {
    await this.#asking
  }

  /** Somebody is signed in: the next who needs it may ask again. */
  noteSignedIn(): void {
    this.#hasAskedInVain = false
  }

  /** @throws what `ask` throws */
  async ask<T>(ask: () => Promise<T>): Promise<T> {
    this.#hasAskedInVain = true
    const over = Promise.withResolvers<void>()
    this.#asking = over.promise
    try {
      const answer = await ask()
      this.#hasAskedInVain = false
      return answer
    } finally {
      this.#asking = undefined
      over.resolve()
    }
  }
}
