import { readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import type { Secret } from './run-record.ts'

/** The secrets in state folders of people, connectors and edges, as somebody sees them who can read the files. */

/** Bound of what is looked at; the database is none of it, and keeps hashes. */
const MAX_FILE_BYTES = 65_536
const MAX_DEPTH = 6
/** Not taken from the product: this is loaded before it is built. */
export const ENROLL_TOKEN = /postern_enroll_[\w-]{43}/
/** A shorter one may stand anywhere by chance. */
export const MIN_SECRET_LENGTH = 16

/** Members of JSON files and answers that are a secret by themselves. */
const SECRET_MEMBERS: Readonly<Record<string, string>> = {
  accessToken: 'access token',
  access_token: 'access token',
  refreshToken: 'refresh token',
  refresh_token: 'refresh token',
  idToken: 'ID token',
  id_token: 'ID token',
  device_code: 'device code',
  client_secret: 'client secret',
  cookieKeys: 'cookie key',
  nonceSecret: 'nonce secret',
}

/** Reads a folder again and again, and what has changed in it only. */
export class StoredSecrets {
  readonly #seen = new Map<string, string>()

  /** Never throws: a folder may go while it is read.
   *  @returns what was not there at the last look */
  readFolder(folder: string, depth = 0): Secret[] {
    const entries = attempt(() => readdirSync(folder, { withFileTypes: true })) ?? []
    return entries.flatMap((entry) => {
      const file = path.join(folder, entry.name)
      if (entry.isDirectory()) return depth < MAX_DEPTH ? this.readFolder(file, depth + 1) : []
      return entry.isFile() ? this.#readFile(file) : []
    })
  }

  #readFile(file: string): Secret[] {
    const { size = 0, mtimeMs = 0, ino = 0 } = attempt(() => statSync(file)) ?? {}
    const version = `${ino} ${size} ${mtimeMs}`
    if (size > MAX_FILE_BYTES || this.#seen.get(file) === version) return []
    this.#seen.set(file, version)
    const text = attempt(() => readFileSync(file, 'utf8'))
    return text === undefined ? [] : secretsOfFile(file, text)
  }
}

function secretsOfFile(file: string, text: string): Secret[] {
  if (file.endsWith('client-secret')) return [{ kind: 'client secret', value: text.trim() }]
  const keyKind = keyKindOf(file)
  return secretsOfJson(text, keyKind) ?? secretsOfText(text, keyKind)
}

/** @param keyKind whose private keys they are
 *  @returns undefined for what is not JSON */
export function secretsOfJson(text: string, keyKind: string): Secret[] | undefined {
  const value = attempt(() => JSON.parse(text) as unknown)
  return typeof value === 'object' && value !== null ? [...walk(value, keyKind)] : undefined
}

function* walk(value: object, keyKind: string): Generator<Secret> {
  for (const [name, member] of Object.entries(value)) {
    const kind = SECRET_MEMBERS[name] ?? (name === 'd' && 'kty' in value ? keyKind : undefined)
    for (const one of [member].flat()) {
      if (typeof one === 'object' && one !== null) yield* walk(one, keyKind)
      else if (typeof one !== 'string') continue
      else if (kind === undefined) yield* secretsOfText(one, keyKind)
      else if (one.length >= MIN_SECRET_LENGTH) yield { kind, value: one }
    }
  }
}

/** A private key in PEM may be cut anywhere, so each whole line of it is a secret. Of OpenSSH's own form the first
 *  is the same in all keys. */
function secretsOfText(text: string, keyKind: string): Secret[] {
  const blocks = [...text.matchAll(/-----BEGIN ([A-Z ]*)PRIVATE KEY-----\s([A-Za-z0-9+/=\s]+)-----END/g)]
  const lines = blocks
    .flatMap(([, form, body = '']) => body.split(/\s+/).slice(form === 'OPENSSH ' ? 1 : 0))
    .filter((line) => line.length >= 64)
  const tokens = text.match(new RegExp(ENROLL_TOKEN, 'g')) ?? []
  return [
    ...lines.map((value) => ({ kind: keyKind, value })),
    ...tokens.map((value) => ({ kind: 'enroll token', value })),
  ]
}

function keyKindOf(file: string): string {
  if (path.basename(file) === 'session.json') return 'DPoP key'
  if (path.basename(file) === 'login-keys.json') return 'issuer key'
  if (/\/(connectors|enrolling)\//.test(file)) return 'connector key'
  if (/\/certificates\//.test(file)) return 'client key'
  if (/\/ca\//.test(file)) return 'authority key'
  return 'private key'
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
