/** What is to happen at once, on a machine that has other things to do. */
export declare const AT_ONCE_MS = 10000
/** Waits until `look` finds something: for states of other processes that send no event here.
 *  @returns what it found
 *  @throws when the time is over, with the last error of `look` as the cause */
export declare function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs?: number,
): Promise<T>
/** The promise's result, or an error that names what did not come. */
export declare function within<T>(what: string, promise: Promise<T>, timeoutMs?: number): Promise<T>
