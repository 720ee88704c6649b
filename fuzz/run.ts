import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { fuzz } from './target.ts'
import { TARGETS } from './targets.ts'

/** `npm run fuzz`: the parsers of the edge, for as long as one likes. */

const HELP = `usage: npm run fuzz -- [options]

  --seconds N      how long, over all targets (default: 60)
  --target NAME    only this one: ${TARGETS.map(({ name }) => name).join(', ')}
  --seed N         start from this seed instead of a random one
  --case N         run only this case of the seed
`

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    target: { type: 'string' },
    seed: { type: 'string' },
    case: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) process.stdout.write(HELP)
else process.exitCode = await run()

async function run(): Promise<number> {
  const targets = TARGETS.filter(({ name }) => values.target === undefined || name === values.target)
  if (targets.length === 0) {
    process.stderr.write(`there is no target ${values.target}\n${HELP}`)
    return 2
  }
  Error.stackTraceLimit = 0
  const seed = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed)
  const shareMs = (Number(values.seconds) * 1_000) / targets.length
  for (const target of targets) {
    const end = performance.now() + shareMs
    const isLate = (done: number) => done % 256 === 0 && performance.now() > end
    try {
      const done =
        values.case === undefined
          ? await fuzz(target, { seed, isOver: isLate })
          : await fuzz(target, { seed, first: Number(values.case), isOver: (count) => count === 1 })
      process.stdout.write(`${target.name}: ${done} cases of seed ${seed}, nothing found\n`)
    } catch (error) {
      process.stderr.write(`${(error as Error).message}\n`)
      return 1
    }
  }
  return 0
}
