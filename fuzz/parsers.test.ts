import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { fuzz } from './target.ts'
import { TARGETS } from './targets.ts'

/** What reads the bytes and words of strangers, with half of the cases the same in every run and half new ones. */

const FIXED_SEED = 1
const randomSeed = Number(process.env.POSTERN_FUZZ_SEED ?? randomInt(2 ** 31))
Error.stackTraceLimit = 0 // most cases end in an error, and stacks take longer than what is tested

for (const target of TARGETS) {
  for (const seed of [FIXED_SEED, randomSeed]) {
    test(`${target.name}: ${target.cases / 2} cases of seed ${seed}`, async () => {
      await fuzz(target, { seed, isOver: (done) => done === target.cases / 2 })
    })
  }
}
