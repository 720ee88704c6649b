import { setTimeout as pause } from 'node:timers/promises'

const LOOK_AGAIN_MS = 20
/** Far more than anything takes on a busy machine: it ends what would never come. */
const GENEROUS_MS = 60_000
/** What is to happen at once, on a machine that has other things to do. */
export const AT_ONCE_MS = 10_000

/** Waits until `look` finds something: for states of other processes that send no event here.
 *  @returns what it found
 *  @throws when the time is over, with the last error of `look` as the cause */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = GENEROUS_MS,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  let cause: unknown
  while (performance.now() < deadline) {
    try {
      const found = await look()
      if (found !== undefined && found !== false) return found
    } catch (error) {
      cause = error
    }
    await pause(LOOK_AGAIN_MS)
  }
  throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause })
}

/** The promise's result, or an error that names what did not come. */
export async function within<T>(what: string, promise: Promise<T>, timeoutMs = GENEROUS_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${timeoutMs} ms: ${what}`)), timeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
