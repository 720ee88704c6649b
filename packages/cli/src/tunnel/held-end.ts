import type { PosternError } from '@postern/shared/errors'
import type { FlowEnd, Receiver } from '@postern/shared/stream/flow-end'
import type { Lender } from '@postern/shared/stream/slab-reader'

/** How much of a flow may wait for the service to answer the dial. */
const MAX_HELD_BYTES = 256 * 1024

/** A flow's end whose bytes arrive before there is anything to join it to: the client does not wait for the
 *  service. Keeps what arrives, within a bound, and hands it on in order at the first `resume()`. Reading goes on
 *  up to the bound, so that an end that breaks meanwhile is noticed. */
export class HeldEnd implements FlowEnd {
  readonly #end: FlowEnd
  readonly #onCut: (error: PosternError) => void
  #held: Buffer[] = []
  #heldBytes = 0
  #ended = false
  #cut: PosternError | undefined
  #receiver: Receiver | undefined
  #handedOn = false

  /** @param onCut called when the end breaks before it is joined */
  constructor(end: FlowEnd, onCut: (error: PosternError) => void) {
    this.#end = end
    this.#onCut = onCut
    end.receive({
      chunk: (bytes) => this.#hold(bytes),
      end: () => {
        this.#ended = true
      },
      drain: () => undefined,
      cut: (error) => {
        this.#cut = error
        this.#onCut(error)
      },
    })
  }

  receive(receiver: Receiver): void {
    this.#receiver = receiver
  }

  write(bytes: Buffer, lender?: Lender): boolean {
    return this.#end.write(bytes, lender)
  }

  end(flushed: () => void): void {
    this.#end.end(flushed)
  }

  pause(): void {
    this.#end.pause()
  }

  resume(): void {
    if (!this.#handedOn) this.#handOn(this.#receiver!)
    if (!this.#cut) this.#end.resume()
  }

  abort(error: PosternError): void {
    this.#end.abort(error)
  }

  #hold(bytes: Buffer): void {
    this.#held.push(bytes)
    this.#heldBytes += bytes.length
    if (this.#heldBytes >= MAX_HELD_BYTES) this.#end.pause()
  }

  #handOn(receiver: Receiver): void {
    this.#handedOn = true
    this.#end.receive(receiver)
    for (const bytes of this.#held.splice(0)) receiver.chunk(bytes)
    if (this.#ended) receiver.end()
    if (this.#cut) receiver.cut(this.#cut)
  }
}
