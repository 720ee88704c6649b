import type { PosternError } from '../errors.ts'
import type { FlowEnd, Receiver } from './flow-end.ts'

/** What passed between two ends. `up` is left to right. */
export interface Traffic {
  bytesUp: number
  bytesDown: number
  /** Set when the flow did not end cleanly in both directions: who broke it, why, and whether the right end
   *  had already sent everything by then (a client may leave once it has the answer). */
  cut?: { by: 'left' | 'right' | 'signal'; error: PosternError; downEnded: boolean }
}

export interface SpliceOptions {
  /** Aborts both ends with its reason, a PosternError. */
  signal?: AbortSignal
  /** Turns what broke the right end into what the left one is told. */
  explain?: (error: PosternError) => PosternError
  /** ok, hello and open frames of the right end. */
  onControl?: Receiver['control']
  /** The right end has sent everything, and the left one has it. */
  onDownFlushed?: () => void
}

/** Joins two ends until both directions have ended and everything was handed on. Keeps half-close and
 *  back-pressure, and counts. When one end is cut, the other is aborted with the same error. Resolves in every
 *  case; never rejects. */
export function splice(left: FlowEnd, right: FlowEnd, options: SpliceOptions = {}): Promise<Traffic> {
  const { signal, explain, onControl, onDownFlushed } = options
  return new Promise((resolve) => {
    const traffic: Traffic = { bytesUp: 0, bytesDown: 0 }
    let upFlushed = false
    let downEnded = false
    let downFlushed = false
    let done = false

    const finish = () => {
      done = true
      signal?.removeEventListener('abort', onAbort)
      resolve(traffic)
    }
    const cut = (by: 'left' | 'right' | 'signal', error: PosternError) => {
      if (done) return
      traffic.cut = { by, error, downEnded }
      if (by !== 'left') left.abort(error)
      if (by !== 'right') right.abort(error)
      finish()
    }
    const onAbort = () => cut('signal', signal!.reason as PosternError)

    left.receive({
      chunk(bytes, lender) {
        traffic.bytesUp += bytes.length
        if (!right.write(bytes, lender)) left.pause()
      },
      end() {
        right.end(() => {
          upFlushed = true
          if (downFlushed && !done) finish()
        })
      },
      drain: () => right.resume(),
      cut: (error) => cut('left', error),
    })
    right.receive({
      chunk(bytes, lender) {
        traffic.bytesDown += bytes.length
        if (!left.write(bytes, lender)) right.pause()
      },
      end() {
        downEnded = true
        left.end(() => {
          downFlushed = true
          onDownFlushed?.()
          if (upFlushed && !done) finish()
        })
      },
      drain: () => left.resume(),
      cut: (error) => cut('right', explain ? explain(error) : error),
      ...(onControl ? { control: onControl } : {}),
    })

    if (signal?.aborted) return onAbort()
    signal?.addEventListener('abort', onAbort)
    left.resume()
    right.resume()
  })
}
