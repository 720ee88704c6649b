import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { findFreePort } from '../../demo/free-port.ts'
import { Program, type ProgramResult } from '../../demo/program.ts'
import { makeTempFolder } from './temp-folder.ts'
import { until } from './until.ts'

/** A real sshd with a configuration folder of its own, like /etc/ssh, for what changes such a folder. It reads its
 *  files again at SIGHUP, as the system's does. */
export interface OwnSshd extends AsyncDisposable {
  port: number
  user: string
  /** Private key in the user's authorized_keys. */
  keyFile: string
  folder: string
  configFile: string
  /** `sshd_config.d`, included by the main file. */
  dropIns: string
  program: Program
  /** All that sshd has said. */
  log(): string
}

export interface OwnSshdOptions {
  /** More lines, at the end. */
  lines?: readonly string[]
  /** Leave the drop-in folder out of the main file. */
  withoutInclude?: boolean
}

export async function startOwnSshd(options: OwnSshdOptions = {}): Promise<OwnSshd> {
  if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  const folder = makeTempFolder('etc-ssh')
  chmodSync(folder, 0o755)
  const at = (name: string) => path.join(folder, name)
  for (const name of ['ssh_host_ed25519_key', 'ssh_host_rsa_key', 'user_key']) makeKey(at(name))
  writeFileSync(at('authorized_keys'), readFileSync(at('user_key.pub')), { mode: 0o644 })
  mkdirSync(at('sshd_config.d'))
  const port = await findFreePort()
  const text = [
    '# by hand',
    ...(options.withoutInclude ? [] : [`Include ${at('sshd_config.d')}/*.conf`]),
    `ListenAddress 127.0.0.1:${port}`,
    `HostKey ${at('ssh_host_ed25519_key')}`,
    `HostKey ${at('ssh_host_rsa_key')}`,
    `PidFile ${at('sshd.pid')}`,
    `AuthorizedKeysFile ${at('authorized_keys')}`,
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'PermitRootLogin prohibit-password',
    'UsePAM no',
    'StrictModes no',
    'PrintMotd no',
    'PrintLastLog no',
    'MaxStartups 100',
    ...(options.lines ?? []),
  ].join('\n') // no new line at the end: that is to stay
  writeFileSync(at('sshd_config'), text, { mode: 0o640 })
  const program = new Program('/usr/sbin/sshd', ['-D', '-e', '-f', at('sshd_config')], { stdin: '' })
  await program.matches(/Server listening on/)
  await until('sshd writes its pid', () => readFileSync(at('sshd.pid'), 'utf8') !== '')
  return {
    ...{ port, user: userInfo().username, keyFile: at('user_key'), folder, program },
    configFile: at('sshd_config'),
    dropIns: at('sshd_config.d'),
    log: () => program.logs(),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

export function makeKey(file: string): string {
  const type = file.includes('rsa') ? 'rsa' : 'ed25519'
  keygen('-q', '-t', type, '-N', '', '-C', 'postern', '-f', file)
  return file
}

export function keygen(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ssh-keygen ${args.join(' ')}: ${stderr}`)
  return stdout
}

export interface DirectLogin {
  keyFile: string
  certificateFile?: string
  user?: string
  /** More options of ssh. */
  options?: readonly string[]
}

/** Signs in straight to the port, with this key alone, and runs `echo in`. */
export function logInDirectly(sshd: OwnSshd, login: DirectLogin): Promise<ProgramResult> {
  const options = [
    ...['BatchMode=yes', 'IdentityAgent=none', 'IdentitiesOnly=yes', 'PreferredAuthentications=publickey'],
    ...['GlobalKnownHostsFile=/dev/null', `IdentityFile=${login.keyFile}`],
    ...(login.certificateFile ? [`CertificateFile=${login.certificateFile}`] : []),
    ...(login.options ?? ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null']),
  ].flatMap((option) => ['-o', option])
  const destination = ['-p', String(sshd.port), '-l', login.user ?? sshd.user, '127.0.0.1']
  return new Program('ssh', ['-F', 'none', ...options, ...destination, 'echo in'], { stdin: '' }).ended
}

/** Whether that login works. */
export async function opens(sshd: OwnSshd, login: DirectLogin): Promise<boolean> {
  const { code, stdout } = await logInDirectly(sshd, login)
  return code === 0 && stdout === 'in\n'
}
