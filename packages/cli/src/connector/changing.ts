/** A value that somebody replaces while others use it. */
export class Changing<T> {
  #value: T
  #replaced = Promise.withResolvers<void>()

  constructor(value: T) {
    this.#value = value
  }

  /** As it is now, and what settles once it is so no more. */
  get now(): { value: T; replaced: Promise<void> } {
    return { value: this.#value, replaced: this.#replaced.promise }
  }

  replace(value: T): void {
    this.#value = value
    this.#replaced.resolve()
    this.#replaced = Promise.withResolvers()
  }
}
