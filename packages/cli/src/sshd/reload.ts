import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { userInfo } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { PosternError } from '@postern/shared/errors'
import { checkConfig, firstValue, readEffectiveConfig, type SshdFiles } from './effective-config.ts'
import { findProgram, lastLines, runProgram } from './run-program.ts'

/** Makes the running sshd read its files again. Connections that live are not touched. */

export interface Reload extends SshdFiles {
  /** For a shell, in place of what is found out. */
  reloadCommand?: string | undefined
}

const ANSWER_TIMEOUT_MS = 30_000
const ANSWERS_IN_A_ROW = 3
const PAUSE_MS = 200

/** A restart with a bad file would end sshd: the files are checked first, here, whoever calls.
 *  @throws SSHD_SETUP_FAILED when sshd is not there afterwards, though it was before */
export async function reloadSshd(reload: Reload): Promise<void> {
  await checkConfig(reload)
  const addresses = await listenAddresses(reload)
  const answered = await Promise.all(addresses.map(answersAsSsh))
  await askForReload(reload)
  const expected = addresses.filter((_address, index) => answered[index])
  for (const address of expected) await waitForAnswer(address)
}

async function askForReload(reload: Reload): Promise<void> {
  for (const [program, ...args] of await findReloadCommands(reload)) await runCommand(program, args)
}

/** How this sshd is told: each command as words, the program first. None where each new connection reads the files.
 *  @throws SSHD_SETUP_FAILED nobody knows how */
export async function findReloadCommands(reload: Reload): Promise<[string, ...string[]][]> {
  if (reload.reloadCommand !== undefined) return [['/bin/sh', '-c', reload.reloadCommand]]
  const pid = await findPid(reload)
  if (pid !== undefined) return [['/bin/sh', '-c', `kill -HUP ${pid}`]]
  const systemctl = existsSync('/run/systemd/system') ? findProgram('systemctl') : undefined
  if (!systemctl) {
    throw new PosternError('SSHD_SETUP_FAILED', 'cannot find the running sshd to reload it', {
      hint: 'name the way: --reload-command "service ssh reload"',
    })
  }
  // Debian calls it ssh, others sshd; with ssh.socket there may be none, and each new one reads the files
  const units = await Promise.all(
    ['ssh.service', 'sshd.service'].map(async (unit) => {
      const { code } = await runProgram(systemctl, ['--quiet', 'is-active', unit])
      return code === 0 ? [unit] : []
    }),
  )
  return units
    .flat()
    .slice(0, 1)
    .map((unit) => [systemctl, 'reload', unit])
}

/** The process that the configuration's PidFile names, if it is an sshd. */
async function findPid(files: SshdFiles): Promise<number | undefined> {
  const file = firstValue(await readEffectiveConfig(files, userInfo().username), 'pidfile')
  if (file === undefined || !existsSync(file)) return undefined
  const pid = Number(readFileSync(file, 'utf8').trim())
  if (!Number.isSafeInteger(pid) || pid < 2) return undefined
  try {
    return path.basename(readlinkSync(`/proc/${pid}/exe`)).startsWith('sshd') ? pid : undefined
  } catch {
    return undefined
  }
}

async function runCommand(file: string, args: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await runProgram(file, args)
  if (code === 0) return
  throw new PosternError(
    'SSHD_SETUP_FAILED',
    `sshd was not reloaded, ${args.at(-1)}: ${lastLines(stderr || stdout)}`,
  )
}

interface ListenAddress {
  host: string
  port: number
}

async function listenAddresses(files: SshdFiles): Promise<ListenAddress[]> {
  const config = await readEffectiveConfig(files, userInfo().username)
  return (config.get('listenaddress') ?? []).flatMap((text) => {
    const [, six, four, port] = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d+)$/i.exec(text) ?? []
    const host = (six ?? four)?.replace(/^0\.0\.0\.0$/, '127.0.0.1').replace(/^::$/, '::1')
    return host === undefined ? [] : [{ host, port: Number(port) }]
  })
}

async function waitForAnswer(address: ListenAddress): Promise<void> {
  const deadline = performance.now() + ANSWER_TIMEOUT_MS
  // it closes its port for a moment while it starts itself again, and may answer once more before
  for (let inARow = 0; performance.now() < deadline; ) {
    await wait(PAUSE_MS)
    inARow = (await answersAsSsh(address)) ? inARow + 1 : 0
    if (inARow === ANSWERS_IN_A_ROW) return
  }
  throw new PosternError(
    'SSHD_SETUP_FAILED',
    `sshd does not answer on ${address.host} port ${address.port} after its reload`,
  )
}

function answersAsSsh({ host, port }: ListenAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    const settle = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(5_000, () => settle(false))
    socket.once('error', () => settle(false))
    socket.once('end', () => settle(false))
    socket.once('data', (bytes) => settle(bytes.toString('latin1', 0, 4) === 'SSH-'))
  })
}
