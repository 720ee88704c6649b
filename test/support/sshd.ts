import { existsSync } from 'node:fs'
import path from 'node:path'
import {
  type PrivateSshd,
  proxyCommandOf,
  startPrivateSshd,
  writeSshConfig,
} from '../../demo/private-sshd.ts'
import { Program, type ProgramOptions } from '../../demo/program.ts'
import { POSTERN, posternEnv } from './postern.ts'
import { makeTempFolder } from './temp-folder.ts'

/** A real sshd on a loopback port, see demo/private-sshd.ts. */
export function startSshd(): Promise<PrivateSshd> {
  return startPrivateSshd(makeTempFolder('sshd'))
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
