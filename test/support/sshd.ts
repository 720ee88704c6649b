import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { quoteForShell } from '../../demo/dev-login.ts'
import {
  type PrivateSshd,
  proxyCommandOf,
  startPrivateSshd,
  writeSshConfig,
} from '../../demo/private-sshd.ts'
import { Program, type ProgramOptions } from '../../demo/program.ts'
import { POSTERN, posternEnv } from './postern.ts'
import { makeTempFolder } from './temp-folder.ts'

/** Bash reads .bashrc for a command over ssh, unless it thinks that another shell has: what this machine's user has in
 *  there is not to be heard in the tests. */
const NO_BASHRC = 'SetEnv SHLVL=2'

/** A real sshd on a loopback port, see demo/private-sshd.ts. */
export function startSshd(): Promise<PrivateSshd> {
  return startPrivateSshd(makeTempFolder('sshd'), [NO_BASHRC])
}

/** A real sshd that knows no key of anybody: it admits whoever has a certificate of this CA that names one of the
 *  principals in the returned file, which may be written later.
 *  @param lines more of its configuration
 *  @param port of one before, to take its place */
export async function startCertifiedSshd(
  userCaFile: string,
  lines: readonly string[] = [],
  port?: number,
): Promise<PrivateSshd & { principalsFile: string }> {
  const folder = makeTempFolder('sshd')
  const principalsFile = path.join(folder, 'principals')
  const sshd = await startPrivateSshd(
    folder,
    [
      ...lines,
      `TrustedUserCAKeys ${userCaFile}`,
      `AuthorizedPrincipalsFile ${principalsFile}`,
      'AuthorizedKeysFile none',
      'LogLevel VERBOSE',
    ],
    port,
  )
  return { ...sshd, principalsFile }
}

export interface SshPerson {
  /** POSTERN_HOME of the person. */
  home: string
  /** See dev-browser.ts. Left out: there is no browser. */
  browser?: string
}

/** Writes the ssh configuration that reaches `host` through `postern client tls --host %h`.
 *  @returns the file for `ssh -F`, `scp -F` and `rsync -e 'ssh -F …'` */
export function makeSshConfig(host: string, sshd: PrivateSshd, person: SshPerson): string {
  const file = path.join(makeTempFolder('ssh'), 'config')
  const environment = Object.entries(posternEnv(person))
    .filter(([name, value]) => ['POSTERN_HOME', 'BROWSER'].includes(name) && value !== undefined)
    .map(([name, value]) => `${name}=${value}`)
  const command = ['env', ...environment, process.execPath, POSTERN, 'client', 'tls', '--host', '%h']
  writeSshConfig({ file, host, sshd, proxyCommand: proxyCommandOf(command) })
  return file
}

/** Starts `ssh -F configFile …`. Asks nothing: a question would be a failure. */
export function startSsh(configFile: string, args: readonly string[], options: ProgramOptions = {}): Program {
  if (!existsSync(configFile)) throw new Error(`${configFile} does not exist`)
  return new Program('ssh', ['-F', configFile, '-o', 'BatchMode=yes', ...args], options)
}

/** One person at one machine: `ssh` reads the configuration below this HOME (by itself it looks where the user
 *  database says), and `postern` is a command on the PATH. */
export interface SshMachine {
  home: string
  /** `~/.ssh`, with the sshd's host key as a person would have accepted it. */
  sshFolder: string
  configFile: string
  env: NodeJS.ProcessEnv
}

export function makeSshMachine(home: string): SshMachine {
  const [bin, sshFolder] = [path.join(home, 'bin'), path.join(home, '.ssh')]
  const configFile = path.join(sshFolder, 'config')
  mkdirSync(bin, { recursive: true })
  mkdirSync(sshFolder, { recursive: true, mode: 0o700 })
  const scripts = {
    postern: `exec '${process.execPath}' '${POSTERN}' "$@"`,
    ssh: `file=${quoteForShell(configFile)}\n[ -e "$file" ] || file=none\nexec /usr/bin/ssh -F "$file" "$@"`,
  }
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(path.join(bin, name), `#!/bin/sh\n${text}\n`)
    chmodSync(path.join(bin, name), 0o755)
  }
  return {
    home,
    sshFolder,
    configFile,
    env: posternEnv({ home, env: { PATH: `${bin}:${process.env.PATH}` } }),
  }
}

/** What ssh would write after a yes. */
export function acceptHostKey({ sshFolder }: SshMachine, host: string, sshd: PrivateSshd): void {
  writeFileSync(path.join(sshFolder, 'known_hosts'), `${host} ${sshd.hostKey}\n`, { flag: 'a' })
}

/** Runs a program of this machine to its end, with an empty input and without a terminal. */
export function runOn({ env }: SshMachine, command: string, args: readonly string[]) {
  return new Program(command, args, { env, stdin: '' }).ended
}
