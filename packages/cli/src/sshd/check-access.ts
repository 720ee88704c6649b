import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import {
  type EffectiveConfig,
  findSideEffect,
  firstValue,
  readEffectiveConfig,
  type SshdFiles,
} from './effective-config.ts'
import { requireProgram, runProgram } from './run-program.ts'
import { SecondSshd, tryLogin } from './second-sshd.ts'

/** Whether people still get in, and now get in: tried with a second sshd, not concluded.
 *
 *  Nobody's private key is here. For the old access sshd is asked whether each public key that it knows would do,
 *  before and after. For the new one a CA made for this check signs a certificate, and stands in for the edge's CA in
 *  the second sshd alone: all the rest of the way is the real one. */

/** How somebody could get in before. */
export interface Access {
  user: string
  config: EffectiveConfig
  /** Public keys that sshd accepts now, as lines. */
  keys: readonly string[]
}

/** Enough to know; each takes a connection. */
const MAX_KEYS_PER_USER = 12
const MAX_KEYS_FILE_BYTES = 1024 * 1024

export async function recordAccess(files: SshdFiles, users: readonly string[]): Promise<Access[]> {
  using folder = makeFolder()
  await using sshd = await SecondSshd.start(files)
  const accesses: Access[] = []
  for (const user of users) {
    const config = await readEffectiveConfig(files, user)
    const known = await readAuthorizedKeys(config, user)
    const keys: string[] = []
    for (const key of known.slice(0, MAX_KEYS_PER_USER)) {
      if (await acceptsKey(sshd, user, key, folder.path)) keys.push(key)
    }
    accesses.push({ user, config, keys })
  }
  return accesses
}

/** @throws SSHD_SETUP_FAILED naming who would be locked out, or what else would change */
export async function checkOldAccess(files: SshdFiles, before: readonly Access[]): Promise<void> {
  using folder = makeFolder()
  await using sshd = await SecondSshd.start(files)
  for (const { user, config, keys } of before) {
    const change = findSideEffect(config, await readEffectiveConfig(files, user))
    if (change) throw failed(`it would change more for ${user} than it should: ${change}`)
    for (const key of keys) {
      if (await acceptsKey(sshd, user, key, folder.path)) continue
      throw failed(`a key of ${user} that worked would not work any more: ${sshd.lastWords}`)
    }
  }
}

/** @throws SSHD_SETUP_FAILED naming whom the certificate does not let in, or whom a wrong one does */
export async function checkNewAccess(
  files: SshdFiles,
  { users, serviceHost, userCaFile }: { users: readonly string[]; serviceHost: string; userCaFile: string },
): Promise<void> {
  using folder = makeFolder()
  const ca = await makeKey(folder.path, 'ca')
  const key = await makeKey(folder.path, 'key')
  const wrong = `not-${serviceHost}`.slice(0, 64)
  const right = await certify(ca, key, serviceHost)
  await using sshd = await SecondSshd.start(files, [`TrustedUserCAKeys ${quote(`${ca}.pub`)}`])
  const login = { port: sshd.port, keyFile: key, knownHostsFile: knownHosts(folder.path) }
  for (const user of users) {
    const used = firstValue(await readEffectiveConfig(files, user), 'trustedusercakeys')
    if (used !== userCaFile) throw failed(`sshd would read the CA for ${user} from ${used ?? 'nowhere'}`)
    const signIn = { ...login, user, certificateFile: right, expect: 'signed in' as const }
    if (!(await tryLogin(signIn))) {
      throw failed(`a certificate for ${serviceHost} would not let ${user} in: ${sshd.lastWords}`)
    }
  }
  const other = await certify(ca, key, wrong)
  for (const user of users) {
    if (await tryLogin({ ...login, user, certificateFile: other, expect: 'key accepted' }))
      throw failed(`a certificate for another service would let ${user} in`)
  }
}

function acceptsKey(sshd: SecondSshd, user: string, key: string, folder: string): Promise<boolean> {
  const keyFile = path.join(folder, 'asked.pub')
  writeFileSync(keyFile, `${key}\n`, { mode: 0o600 })
  return tryLogin({
    port: sshd.port,
    user,
    keyFile,
    expect: 'key accepted',
    knownHostsFile: knownHosts(folder),
  })
}

/** Public keys in the user's files, without those that are a CA. */
async function readAuthorizedKeys(config: EffectiveConfig, user: string): Promise<string[]> {
  const account = await readAccount(user)
  if (!account) return []
  const files = (firstValue(config, 'authorizedkeysfile') ?? '').split(' ').filter((file) => file !== '')
  return files.flatMap((pattern) => {
    const tokens: Record<string, string> = { '%%': '%', '%h': account.home, '%u': user, '%U': account.uid }
    const file = path.resolve(
      account.home,
      pattern.replace(/%[%huU]/g, (token) => tokens[token]!),
    )
    if (!existsSync(file)) return []
    return findKeys(readFileSync(file, 'utf8').slice(0, MAX_KEYS_FILE_BYTES))
  })
}

export function findKeys(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const [, options, key] = /^(.*?)((?:ssh|ecdsa|sk)-[a-z0-9@.-]+ +AAAA[A-Za-z0-9+/]+=*)/.exec(line) ?? []
    const isKey = key !== undefined && !line.trimStart().startsWith('#')
    return isKey && !/\bcert-authority\b/.test(options!) ? [key] : []
  })
}

/** @returns undefined when there is no such account */
export async function readAccount(user: string): Promise<{ uid: string; home: string } | undefined> {
  const { code, stdout } = await runProgram('getent', ['passwd', user])
  const [name, , uid, , , home] = stdout.trim().split(':')
  return code === 0 && name === user && uid && home ? { uid, home } : undefined
}

async function makeKey(folder: string, name: string): Promise<string> {
  const file = path.join(folder, name)
  await keygen('-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', file)
  return file
}

/** @returns the certificate's file */
async function certify(ca: string, key: string, principal: string): Promise<string> {
  await keygen('-q', '-s', ca, '-I', 'check', '-n', principal, '-V', '-5m:+10m', `${key}.pub`)
  return `${key}-cert.pub`
}

async function keygen(...args: string[]): Promise<void> {
  const { code, stderr } = await runProgram(requireProgram('ssh-keygen'), args)
  if (code !== 0) throw failed(`ssh-keygen fails: ${stderr.trim()}`)
}

/** For this user's eyes, gone at the end. */
function makeFolder(): { path: string } & Disposable {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-check-'))
  return { path: folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

/** A new one for each port would be asked about again. */
function knownHosts(folder: string): string {
  return path.join(folder, 'known_hosts')
}

function quote(file: string): string {
  return `"${file}"`
}

function failed(why: string): PosternError {
  return new PosternError('SSHD_SETUP_FAILED', `nothing was changed: ${why}`)
}
