import type { PosternError } from '../errors.ts'
import type { ControlType } from '../protocol/frames.ts'
import type { Lender } from './slab-reader.ts'

/** What one end of a flow tells whoever holds it. */
export interface Receiver {
  /** Bytes that arrived. Call `pause()` on the end when they cannot be passed on.
   *  @param lender whose memory they are. Whoever borrows it lets it be used again afterwards */
  chunk(bytes: Buffer, lender?: Lender): void
  /** The other side has sent everything: half-close, not the end of the flow. */
  end(): void
  /** Writing may go on after `write` returned false. */
  drain(): void
  /** The end broke: an error frame (its code), a lost connection or one that closed without its end
   *  (`FLOW_CUT`). Called at most once; nothing follows it. When it broke before, the receiver is told soon after
   *  `receive`. */
  cut(error: PosternError): void
  /** ok, hello or open. Only framed ends send them. */
  control?(type: Exclude<ControlType, 'error'>, body: unknown): void
}

/** One end of a flow, whatever its form: plain TCP, raw TLS, framed TLS, stdin and stdout. */
export interface FlowEnd {
  /** Names who is told from now on. The end starts paused and begins to read at the first `resume()`. */
  receive(receiver: Receiver): void
  /** @param lender of the bytes: it is borrowed until they are written
   *  @returns false when the caller should wait for `drain` */
  write(bytes: Buffer, lender?: Lender): boolean
  /** All bytes towards this end were written: half-close.
   *  @param flushed called once everything, the end included, was handed to the operating system */
  end(flushed: () => void): void
  pause(): void
  resume(): void
  /** Ends both directions at once, so that the other side cannot take it for a clean end: an error frame
   *  where the form has one, a reset where it has not. */
  abort(error: PosternError): void
}
