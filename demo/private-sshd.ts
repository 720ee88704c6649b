import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { userInfo } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { quoteForShell } from './dev-login.ts'
import { findFreePort } from './free-port.ts'
import { Program } from './program.ts'

/** A real OpenSSH server on a loopback port of its own, with its own host key and one user key, both made for it.
 *  It runs as whoever starts it and lets only that user in, by key. */

const SSHD = '/usr/sbin/sshd'
const START_TIMEOUT_MS = 60_000

export interface PrivateSshd extends AsyncDisposable {
  port: number
  /** The only name it lets in. */
  user: string
  /** Private key that opens it. */
  keyFile: string
  /** Line for known_hosts, without the host: `ssh-ed25519 AAAA…`. */
  hostKey: string
  folder: string
  program: Program
}

export function isSshdInstalled(): boolean {
  return existsSync(SSHD)
}

/** @param lines more of sshd's configuration, stronger than what is here: sshd takes the first value
 *  @param before words of a command that runs it */
export async function startPrivateSshd(
  folder: string,
  lines: readonly string[] = [],
  wantedPort?: number,
  before: readonly string[] = [],
): Promise<PrivateSshd> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  makePrivilegeSeparationFolder()
  const hostKeyFile = path.join(folder, 'host_ed25519')
  const keyFile = path.join(folder, 'user_ed25519')
  for (const file of [hostKeyFile, keyFile]) makeKey(file)
  writeFileSync(path.join(folder, 'authorized_keys'), readFileSync(`${keyFile}.pub`), { mode: 0o600 })

  const port = wantedPort ?? (await findFreePort())
  const user = userInfo().username
  const configFile = path.join(folder, 'sshd_config')
  const text = [...lines, sshdConfig({ folder, hostKeyFile, port, user })].join('\n')
  writeFileSync(configFile, text, { mode: 0o600 })
  const [command = SSHD, ...args] = [...before, SSHD, '-D', '-e', '-f', configFile]
  const program = new Program(command, args, { stdin: '' })
  await waitForPort(port, program)
  return {
    port,
    user,
    keyFile,
    hostKey: readFileSync(`${hostKeyFile}.pub`, 'utf8').split(' ').slice(0, 2).join(' '),
    folder,
    program,
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

function sshdConfig(options: { folder: string; hostKeyFile: string; port: number; user: string }): string {
  const { folder, hostKeyFile, port, user } = options
  return `ListenAddress 127.0.0.1:${port}
HostKey "${hostKeyFile}"
PidFile none
AuthorizedKeysFile "${path.join(folder, 'authorized_keys')}"
AllowUsers ${user}
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PrintMotd no
PrintLastLog no
MaxStartups 100
Subsystem sftp internal-sftp
`
}

export interface SshConfigOptions {
  /** Where to write it. */
  file: string
  /** Name of the service at the edge. */
  host: string
  sshd: PrivateSshd
  /** ssh runs it through the person's shell; `%h` stands for the host. */
  proxyCommand: string
}

/** Writes a configuration for `ssh -F FILE HOST` that knows the sshd's own host key and checks it. */
export function writeSshConfig(options: SshConfigOptions): void {
  const { file, host, sshd, proxyCommand } = options
  const knownHosts = path.join(sshd.folder, 'known_hosts')
  writeFileSync(knownHosts, `${host} ${sshd.hostKey}\n`, { flag: 'a' })
  writeFileSync(
    file,
    `Host ${host}
  User ${sshd.user}
  ProxyCommand ${proxyCommand}
  IdentityFile "${sshd.keyFile}"
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile "${knownHosts}"
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
`,
    { mode: 0o600 },
  )
}

/** A ProxyCommand that runs these words: quoted for the shell, percent signs doubled for ssh, except `%h`. */
export function proxyCommandOf(words: readonly string[]): string {
  return words.map((word) => (word === '%h' ? word : quoteForShell(word.replaceAll('%', '%%')))).join(' ')
}

/** As root sshd wants this folder, which the distribution's service would have made. */
function makePrivilegeSeparationFolder(): void {
  if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
}

function makeKey(file: string): void {
  if (existsSync(file)) return
  const made = spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'postern', '-f', file])
  if (made.status !== 0) throw new Error(`ssh-keygen failed: ${made.error?.message ?? made.stderr}`)
}

async function waitForPort(port: number, program: Program): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS
  while (program.isRunning && performance.now() < deadline) {
    const socket = connect(port, '127.0.0.1')
    const answered = await new Promise<boolean>((resolve) => {
      socket.on('connect', () => resolve(true))
      socket.on('error', () => resolve(false))
    })
    socket.destroy()
    if (answered) return
    await pause(20)
  }
  await program.stop('SIGKILL')
  throw new Error(`sshd did not start\n${program.logs()}`)
}
