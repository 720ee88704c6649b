import { X509Certificate } from 'node:crypto'
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { namesOfEdge } from '../server-certificate/files.ts'
import { checkPair } from '../server-certificate/pair.ts'
import type { EdgeConfig } from './config.ts'
import { type ConfigFiles, parseConfig } from './parse.ts'

const MAX_CONFIG_BYTES = 256 * 1024
const MAX_SECRET_BYTES = 4_096
const WRITABLE_BY_ALL = 0o002

/** Reads the configuration file and the files it names. After this nobody looks at files or the environment.
 *  @throws CONFIG_INVALID */
export function loadConfig(file: string): EdgeConfig {
  const text = readConfigFile(file)
  return parseConfig(text, { name: file, folder: path.dirname(path.resolve(file)), files: filesOf(file) })
}

function filesOf(file: string): ConfigFiles {
  return { readSecret, checkOwnMode: () => checkMode(file), checkCertificate, readCa, checkProgram }
}

function readConfigFile(file: string): string {
  try {
    const { size, mode } = statSync(file)
    // whoever may write it says who is an administrator
    if (process.platform !== 'win32' && mode & WRITABLE_BY_ALL) {
      throw new Error(`everybody on this machine may write to it, run: chmod o-w ${file}`)
    }
    if (size > MAX_CONFIG_BYTES) throw new Error(`it has ${size} bytes, ${MAX_CONFIG_BYTES} are the most`)
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file))
  } catch (cause) {
    throw new PosternError('CONFIG_INVALID', `${file} cannot be read: ${reasonOf(cause)}`, {
      hint: 'name the file with --config, or write one: postern-edge init --domain DOMAIN',
      cause,
    })
  }
}

/** A secret that is open to others is refused, not warned about: warnings are read after the break-in. */
export function readSecret(file: string): string {
  const { mode, size } = statOf(file)
  if (process.platform !== 'win32' && (mode & openBits(file)) !== 0) {
    throw new Error(`can be read by other users of this machine, run: chmod 600 ${file}`)
  }
  if (size > MAX_SECRET_BYTES) throw new Error('is too long for a secret')
  const secret = readOf(file).trim()
  if (secret === '') throw new Error('is empty')
  return secret
}

/** Mode bits that a secret must not have. systemd lets a service read its credentials by an access list, and the mode
 *  of a file with one shows the list's mask where the group's bits are: 0440, though no group may read it. */
function openBits(file: string): number {
  const folder = process.env.CREDENTIALS_DIRECTORY
  return folder && path.dirname(path.resolve(file)) === path.resolve(folder) ? 0o037 : 0o077
}

function checkMode(file: string) {
  const stats = statOf(file)
  if (process.platform !== 'win32' && (stats.mode & openBits(file)) !== 0) {
    throw new Error(`can be read by other users of this machine, run: chmod 600 ${file}`)
  }
  return stats
}

function checkCertificate(certificateFile: string, keyFile: string, domain: string): void {
  const pair = { cert: readOf(certificateFile), key: readOf(keyFile) }
  checkPair(pair, { names: namesOfEdge(domain), keyName: keyFile })
}

function readCa(file: string): string {
  const pem = readOf(file)
  try {
    new X509Certificate(pem)
  } catch (cause) {
    throw new Error('is not a certificate in PEM', { cause })
  }
  return pem
}

function checkProgram(file: string): void {
  if (!statOf(file).isFile()) throw new Error('is not a program')
  try {
    accessSync(file, constants.X_OK)
  } catch (cause) {
    throw new Error(`cannot be run by this user, run: chmod 755 ${file}`, { cause })
  }
}

function statOf(file: string) {
  try {
    return statSync(file)
  } catch (cause) {
    throw new Error(`cannot be read: ${reasonOf(cause)}`, { cause })
  }
}

function readOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new Error(`cannot be read: ${reasonOf(cause)}`, { cause })
  }
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  const reasons: Record<string, string> = {
    ENOENT: 'there is no such file',
    EACCES: 'this user may not read it',
    EISDIR: 'it is a folder',
    ERR_ENCODING_INVALID_ENCODED_DATA: 'it is not UTF-8',
  }
  return (code && reasons[code]) || message
}
