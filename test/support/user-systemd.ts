import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from './temp-folder.ts'
import { until } from './until.ts'

/** A real `systemd --user` of one person. It refuses to begin on a machine that was not booted with systemd, and asks a
 *  folder whether it was: a mount namespace of its own shows it one, and the rest of the machine none. */
export interface UserSystemd extends AsyncDisposable {
  /** For programs of that person. */
  env: NodeJS.ProcessEnv
  /** @returns stdout of systemctl */
  ask(...args: string[]): string
  /** Waits for a property of a unit. */
  shows(unit: string, property: string, value: RegExp): Promise<string>
}

const BEGIN =
  'mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && exec /lib/systemd/systemd --user'

/** @param home where its units lie, in .config/systemd/user */
export async function startUserSystemd(home: string): Promise<UserSystemd> {
  const runtime = makeTempFolder('run')
  mkdirSync(path.join(home, '.config'), { recursive: true })
  const env = { PATH: process.env.PATH, HOME: home, XDG_RUNTIME_DIR: runtime, LANG: 'C.UTF-8' }
  const namespaces = process.getuid?.() === 0 ? ['--mount'] : ['--mount', '--map-root-user']
  const options = { env: { ...env, SYSTEMD_LOG_TARGET: 'console' }, stdin: '' }
  const program = new Program('unshare', [...namespaces, 'sh', '-c', BEGIN], options)
  const run = (args: readonly string[]) =>
    spawnSync('systemctl', ['--user', ...args], { env, encoding: 'utf8' })
  try {
    await until('systemd has begun', () => {
      if (!program.isRunning) throw new Error(program.logs())
      return run(['list-units']).status === 0
    })
  } catch (error) {
    await program.stop('SIGKILL')
    throw error
  }
  const ask: UserSystemd['ask'] = (...args) => {
    const { stdout, stderr, status } = run(args)
    if (status !== 0) throw new Error(`systemctl ${args.join(' ')}: ${stderr}${stdout}`)
    return stdout
  }
  return {
    env: { XDG_RUNTIME_DIR: runtime },
    ask,
    shows: (unit, property, value) =>
      until(`${property} of ${unit} is ${value}`, () => {
        const shown = ask('show', unit, '--value', '--property', property).trim()
        return value.test(shown) ? shown : undefined
      }),
    async [Symbol.asyncDispose]() {
      run(['exit']) // ends its services first
      await program.stop('SIGKILL', 20_000)
    },
  }
}
