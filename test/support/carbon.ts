import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { findFreePort } from '../../demo/free-port.ts'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from './temp-folder.ts'
import { until } from './until.ts'

/** Debian's graphite-carbon, which believes whoever reaches its plaintext port. */
export interface Carbon extends AsyncDisposable {
  port: number
  hasMetric(name: string): boolean
  /** The value in the metric's whisper file, as soon as it is there. */
  value(name: string): Promise<number>
}

export async function startCarbon(): Promise<Carbon> {
  const folder = makeTempFolder('carbon')
  const port = await findFreePort()
  const data = path.join(folder, 'whisper')
  for (const name of ['conf', 'whisper', 'log']) mkdirSync(path.join(folder, name))
  const settings = {
    STORAGE_DIR: folder,
    CONF_DIR: path.join(folder, 'conf'),
    LOG_DIR: path.join(folder, 'log'),
    PID_DIR: folder,
    LOCAL_DATA_DIR: data,
    USER: '',
    LINE_RECEIVER_INTERFACE: '127.0.0.1',
    LINE_RECEIVER_PORT: port,
    PICKLE_RECEIVER_PORT: 0,
    CACHE_QUERY_INTERFACE: '127.0.0.1',
    CACHE_QUERY_PORT: 0,
    ENABLE_TAGS: 'False',
  }
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}\n`)
  const config = path.join(folder, 'conf', 'carbon.conf')
  writeFileSync(config, `[cache]\n${lines.join('')}`)
  writeFileSync(
    path.join(folder, 'conf', 'storage-schemas.conf'),
    '[all]\npattern = .*\nretentions = 10s:1h\n',
  )
  const program = new Program('/usr/bin/carbon-cache', [`--config=${config}`, '--nodaemon', 'start'], {
    env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8' },
    stdin: '',
  })
  await program.matches(/CarbonReceiverFactory starting on/)
  const fileOf = (name: string) => path.join(data, `${name.replaceAll('.', '/')}.wsp`)
  return {
    port,
    hasMetric: (name) => existsSync(fileOf(name)),
    value: (name) => until(`${name} is in its whisper file`, () => readLastValue(fileOf(name))),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

function readLastValue(file: string): number | undefined {
  if (!existsSync(file)) return undefined
  const { stdout, stderr, status } = spawnSync('whisper-fetch', ['--json', file], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  const { values } = JSON.parse(stdout) as { values: (number | null)[] }
  return values.findLast((value) => value !== null) ?? undefined
}
