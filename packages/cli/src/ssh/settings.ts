import { accessSync, constants } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { KnownEdge } from '../credentials/known-edge.ts'
import { knownHostsFile } from './known-hosts-file.ts'

/** What ssh has to be told to reach the services of one edge, as lines of its configuration (ssh_config(5)): for the
 *  file that `ssh-config` writes, and for `-o` of `postern ssh`. Names, paths and commands go through two readers, ssh
 *  and a shell; whatever cannot be said to both is refused. */

export interface SshSurroundings {
  platform: NodeJS.Platform
  /** The folder of people's own files, `$HOME`. */
  home: string
  /** What ssh means by `~`: the user database's folder, whatever HOME says. */
  sshHome: string
  /** `postern` as words: the name alone where the PATH leads to it. */
  program: readonly string[]
}

export function readSurroundings(): SshSurroundings {
  return {
    platform: process.platform,
    home: os.homedir(),
    sshHome: os.userInfo().homedir,
    program: isOnPath('postern') ? ['postern'] : [process.execPath, process.argv[1]!],
  }
}

/** Letters, digits, dots and hyphens: nothing that any reader treats in a special way. */
const DOMAIN = /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/
/** Shells of Windows read these; ssh's patterns cannot name a quote or a question mark, which do no harm alone. */
const WINDOWS_SPECIAL = ['&', '|', '<', '>', '^', '%', '(', ')', ';', "'", '$', '`', ' ']

/** The lines for one host, without indentation. */
export function formatSettings(edge: KnownEdge, around: SshSurroundings, origin?: string): string[] {
  const folder = ownSshFolder(around)
  return [
    `ProxyCommand ${formatCommand(['client', 'tls'], around, origin)}`,
    `IdentityFile ${quotePath(`${folder}/%h`)}`,
    `CertificateFile ${quotePath(`${folder}/%h-cert.pub`)}`,
    'IdentitiesOnly yes',
    // the person's own file first: that is where ssh adds what they accept
    `UserKnownHostsFile ${quotePath(`${folder}/known_hosts`)} ${quotePath(escapePath(knownHostsFile(edge), around))}`,
  ]
}

/** The text of the file that `ssh-config` writes. */
export function formatConfig(edges: readonly KnownEdge[], around: SshSurroundings, origin?: string): string {
  return edges.map((edge) => formatBlock(edge, around, origin)).join('\n')
}

/** Two blocks: with a certificate, and without one. The second one keeps ssh from asking the wildcard's address in
 *  vain: `ssh-keysign` has said what is the matter. */
function formatBlock(edge: KnownEdge, around: SshSurroundings, origin?: string): string {
  const { domain } = edge
  if (!DOMAIN.test(domain)) throw inexpressible(domain)
  const keysign = formatCommand(['client', 'ssh-keysign'], around, origin)
  const special = around.platform === 'win32' ? WINDOWS_SPECIAL : ["'"]
  const hosts = [`*.${domain}`, ...special.map((character) => `!*${character}*`)].join(',')
  return [
    `Match host "${hosts}" exec "${keysign}"`,
    ...formatSettings(edge, around, origin).map((line) => `    ${line}`),
    `Match host "*.${domain}"`,
    `    ProxyCommand ${around.platform === 'win32' ? 'cmd /c exit 1' : 'false'}`,
    '',
  ].join('\n')
}

/** `ssh -o` takes the same lines. */
export function formatArguments(edge: KnownEdge, around: SshSurroundings): string[] {
  if (!DOMAIN.test(edge.domain)) throw inexpressible(edge.domain)
  return formatSettings(edge, around, edge.origin).flatMap((line) => ['-o', line])
}

/** The line that names `file` at the top of the person's own configuration. */
export function formatInclude(file: string, around: SshSurroundings): string {
  const name = `${ownSshFolder(around)}/${path.basename(file)}`
  // ssh takes it for a pattern of file names
  return `Include ${quotePath(name.replace(/[[*?]/g, '[$&]').replaceAll('%%', '%'))}`
}

/** `~` where ssh and HOME agree: it stays right when the configuration is carried elsewhere. */
function ownSshFolder(around: SshSurroundings): string {
  const { home, sshHome } = around
  return home === sshHome ? '~/.ssh' : `${escapePath(home, around)}/.ssh`
}

/** For the person's shell, within ssh's own double quotes. Single quotes make `%h` inert in every POSIX shell, once
 *  hosts with a single quote have been sorted out; cmd.exe knows none, and there special characters are. */
function formatCommand(words: readonly string[], around: SshSurroundings, origin?: string): string {
  const isWindows = around.platform === 'win32'
  const rest = origin === undefined ? [] : ['--edge', origin]
  const program = around.program.map((word) => quoteWord(word, isWindows))
  return [...program, ...words, ...rest, '--host', isWindows ? '%h' : "'%h'"].join(' ')
}

function quoteWord(word: string, isWindows: boolean): string {
  const plain = isWindows ? word.replaceAll('\\', '/') : word
  if (/^[A-Za-z0-9_./:@+-]+$/.test(plain)) return plain
  if (isWindows || /['"\\\n]/.test(plain)) throw inexpressible(plain)
  return `'${plain.replaceAll('%', '%%')}'`
}

function escapePath(file: string, { platform }: SshSurroundings): string {
  const text = platform === 'win32' ? file.replaceAll('\\', '/') : file
  // ssh knows no escape for these; `${` would be a variable
  if (/["\\\n]|\$\{/.test(text)) throw inexpressible(text)
  return text.replaceAll('%', '%%')
}

function quotePath(file: string): string {
  return /^[A-Za-z0-9_./:@+~%-]+$/.test(file) ? file : `"${file}"`
}

function inexpressible(text: string): PosternError {
  return new PosternError(
    'SSH_CONFIG_INVALID',
    `ssh's configuration cannot express the name ${JSON.stringify(text)}`,
    { hint: 'put postern on the PATH, and name a plain folder in POSTERN_HOME' },
  )
}

function isOnPath(name: string): boolean {
  return (process.env.PATH ?? '').split(path.delimiter).some((folder) => {
    try {
      if (!path.isAbsolute(folder)) return false
      accessSync(path.join(folder, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
