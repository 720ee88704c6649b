import { performance } from 'node:perf_hooks'
import { Random } from './random.ts'

/** One thing that reads what strangers wrote. */
export interface Target {
  name: string
  /** How many cases the test run gives it, over its two seeds. */
  cases: number
  /** One case. Throws when what is promised does not hold. */
  run(random: Random): void | Promise<void>
}

/** A case that takes longer hangs, on however busy a machine. */
const MAX_CASE_MS = 10_000
/** What a run may leave behind; garbage that waits for its collection is most of it. */
const MAX_GROWTH_BYTES = 512 * 1024 * 1024

/** Runs cases from `first` on until `isOver`, and stops at the first whose promise does not hold.
 *  @returns how many cases ran
 *  @throws an Error that says how to run the case alone */
export async function fuzz(
  target: Target,
  options: { seed: number; first?: number; isOver: (done: number) => boolean },
): Promise<number> {
  const { seed, first = 0, isOver } = options
  const random = new Random()
  const rssBefore = process.memoryUsage.rss()
  let done = 0
  for (; !isOver(done); done++) {
    const index = first + done
    random.seed(seed, index)
    try {
      const start = performance.now()
      const running = target.run(random)
      if (running) await running
      const tookMs = performance.now() - start
      if (tookMs > MAX_CASE_MS) throw new Error(`took ${Math.round(tookMs)} ms`)
      if (done % 65_536 === 0) {
        const growth = process.memoryUsage.rss() - rssBefore
        if (growth > MAX_GROWTH_BYTES) throw new Error(`the process has grown by ${growth} bytes`)
      }
    } catch (cause) {
      const again = `npm run fuzz -- --target ${target.name} --seed ${seed} --case ${index}`
      throw new Error(`${target.name}: ${String(cause).slice(0, 2_000)}\nrun it again: ${again}`, { cause })
    }
  }
  return done
}
