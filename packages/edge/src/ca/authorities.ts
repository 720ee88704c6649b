import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  type webcrypto,
  X509Certificate,
} from 'node:crypto'
import { readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { explainDisk, makePrivateFolder, writePrivateFile } from '../private-file.ts'
import { generationsOf, readGenerations } from './generations.ts'
import { encodeKey, type KeyLock, readKey } from './key-file.ts'
import type { OfflineRoot } from './offline-root.ts'
import { keyIdOf, signCa, toSigningKey } from './sign-ca.ts'
import { writeWhole } from './ssh-authorities.ts'
import { x509 } from './x509.ts'

/** The edge's own certificate authorities: one self-signed root per kind of certificate, so that a room which
 *  trusts one kind cannot be entered with another (with a common root, OpenSSL accepts a leaf of the wrong kind as
 *  soon as it brings its own intermediate). This folder signs; it does not decide who gets a certificate and does
 *  not store any. */
export const AUTHORITY_KINDS = ['client', 'connector', 'edge', 'workload', 'server'] as const
export type AuthorityKind = (typeof AUTHORITY_KINDS)[number]

/** Folders may be older than these. */
const LATER_KINDS = ['workload', 'server'] as const satisfies readonly AuthorityKind[]

/** Those whose certificates only the edge looks at: nobody else is to notice when they are rotated. */
export const ROTATED_KINDS = ['client', 'connector', 'workload'] as const satisfies readonly AuthorityKind[]

/** What an authority is made of. */
export interface KeptAuthority {
  kind: AuthorityKind
  /** PEM, for `ca:` of a room and for clients. */
  certificatePem: string
  /** Where the PEM lies. */
  certificateFile: string
  /** The same CA, signed by the one that it succeeds and that clients pin. */
  crossPem?: string
  /** A handle: nothing gets the key out of it. */
  signingKey: webcrypto.CryptoKey
}

export interface Authority extends KeptAuthority {
  certificate: InstanceType<typeof x509.X509Certificate>
  /** Its name in DER, as it stands in every leaf. */
  subject: Uint8Array
  /** What `identify` verifies leaves with. */
  publicKey: KeyObject
  /** How every leaf names the key that signed it. */
  keyIdentifier: InstanceType<typeof x509.AuthorityKeyIdentifierExtension>
}

export type Authorities = Readonly<Record<AuthorityKind, Authority>>

/** SHA-256 of the root's DER, for `postern login --ca-fingerprint`. */
export function fingerprintOf(authority: Pick<Authority, 'certificatePem'>): string {
  const { raw } = new X509Certificate(rootOf(authority.certificatePem))
  return `sha256:${createHash('sha256').update(raw).digest('hex')}`
}

/** The certificate that people trust: the last one of the chain, which has one or two. */
export function rootOf(certificatePem: string): string {
  return certificatePem.slice(certificatePem.lastIndexOf('-----BEGIN CERTIFICATE-----'))
}

const FOLDER = 'ca'
const LIFETIME_MS = 10 * 365 * 86_400_000

/** Whether a root stands above it, and clients trust that one. */
export function isBelowRoot({ certificatePem }: Pick<Authority, 'certificatePem'>): boolean {
  return rootOf(certificatePem) !== certificatePem
}

export interface AuthoritySettings {
  /** Of the keys, where they are encrypted. */
  lock?: KeyLock | undefined
  /** Of the edge. The CA for private services may sign no name in it. */
  domain?: string | undefined
}

/** Creates all kinds, in files that only this user reads: `DATA_DIR/ca/<kind>-ca.pem` and `<kind>-ca.key`. The
 *  folder appears whole or not at all.
 *  @throws CONFIG_INVALID when there is one: keys are never overwritten, every certificate hangs on them */
export async function createAuthorities(
  dataDir: string,
  now: number,
  { lock, root, domain }: AuthoritySettings & { root?: OfflineRoot | undefined } = {},
): Promise<Authorities> {
  const folder = path.join(dataDir, FOLDER)
  const draft = `${folder}.new-${randomBytes(6).toString('hex')}`
  await makePrivateFolder(draft)
  try {
    for (const kind of AUTHORITY_KINDS) {
      const made = await makeAuthority(kind, { now, domain, root: kind === 'edge' ? root : undefined })
      await writeFiles(draft, firstName(kind), made, lock)
    }
    await rename(draft, folder) // fails on a folder that has files
  } catch (cause) {
    await rm(draft, { recursive: true, force: true })
    if (!isAlreadyThere(cause)) throw explainDisk(folder, cause)
    throw new PosternError('CONFIG_INVALID', `${folder} has certificate authorities already`, {
      hint: 'keep them: without their keys every certificate issued so far is worthless',
      cause,
    })
  }
  return loadAuthorities(dataDir, lock)
}

/** Those that sign now.
 *  @param lock of the keys, where they are encrypted
 *  @throws CONFIG_INVALID a file is missing, open to others, malformed or does not fit the other · CA_KEY_LOCKED */
export async function loadAuthorities(
  dataDir: string,
  lock?: KeyLock,
  now = Date.now(),
): Promise<Authorities> {
  const kinds = await readGenerations(dataDir)
  const signing = (kind: AuthorityKind) => generationsOf(kinds, kind).signing(now).name
  const all = await Promise.all(
    AUTHORITY_KINDS.map(
      async (kind) => [kind, await loadAuthority(dataDir, kind, { name: signing(kind), lock })] as const,
    ),
  )
  return Object.fromEntries(all) as Authorities
}

/** Loads them, or creates them in a `dataDir` that has none. One that is older than a kind gets that kind. */
export async function openAuthorities(
  dataDir: string,
  now: number,
  settings: AuthoritySettings = {},
): Promise<Authorities> {
  const { lock } = settings
  const folder = path.join(dataDir, FOLDER)
  if (await exists(folder)) {
    const kinds = await readGenerations(dataDir)
    for (const kind of LATER_KINDS) if (!kinds.has(kind)) await addKind(folder, kind, now, settings)
    return loadAuthorities(dataDir, lock, now)
  }
  return createAuthorities(dataDir, now, settings).catch((error: unknown) => {
    // another process was faster
    if (error instanceof PosternError && error.code === 'CONFIG_INVALID')
      return loadAuthorities(dataDir, lock)
    throw error
  })
}

/** A CA that clients pin, and how long they are to follow it to the next one. */
export interface Predecessor {
  authority: Authority
  believedUntil: number
}

interface NewAuthorityFacts {
  now: number
  root?: OfflineRoot
  predecessor?: Predecessor | undefined
}

/** Makes one more CA of a kind, beside those that there are. Nobody uses it before a generation names it.
 *  @param predecessor signs it too, see `EdgeCa`
 *  @returns the name of its files */
export async function addAuthority(
  dataDir: string,
  kind: AuthorityKind,
  { now, lock, root, domain, predecessor }: NewAuthorityFacts & AuthoritySettings,
): Promise<string> {
  const folder = path.join(dataDir, FOLDER)
  const subject = predecessor?.authority.certificate.subjectName
  const made = await makeAuthority(kind, { now, root, domain, subject })
  const name = `${firstName(kind)}-${made.id.slice(0, 8)}`
  await writeFiles(folder, name, made, lock)
  if (predecessor) {
    const crossPem = await signCross(made.privateKey, predecessor, now)
    await writePrivateFile(crossFile(folder, name), crossPem)
  }
  return name
}

/** Adds the first of a kind that this folder may be older than. The certificate follows from the key, so an edge that died
 *  in between goes on with that key. */
async function addKind(
  folder: string,
  kind: AuthorityKind,
  now: number,
  { lock, domain }: AuthoritySettings,
): Promise<void> {
  const [key, file] = [keyFile(folder, firstName(kind)), certificateFile(folder, firstName(kind))]
  if (await exists(file)) return // without its key it was lost, and loading says so
  await writeWhole(key, encodeKey(generateKey(), lock))
  const { certificatePem } = await certify(await readKey(key, lock), kind, { now, domain })
  await writeWhole(file, certificatePem)
}

interface MadeAuthority {
  /** Of its key: stands in its name. */
  id: string
  privateKey: KeyObject
  /** With its root behind it, where it has one. */
  certificatePem: string
}

export function generateKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

interface CaFacts {
  now: number
  /** Signs it; without one it is a root itself. */
  root?: OfflineRoot | undefined
  domain?: string | undefined
  /** Its name, where that is not to be its own. */
  subject?: InstanceType<typeof x509.Name> | undefined
}

function makeAuthority(kind: AuthorityKind, facts: CaFacts): Promise<MadeAuthority> {
  return certify(generateKey(), kind, facts)
}

async function certify(
  privateKey: KeyObject,
  kind: AuthorityKind,
  { now, root, domain, subject }: CaFacts,
): Promise<MadeAuthority> {
  const name = subject ?? `Postern ${kind} CA`
  const lifetimeMs = LIFETIME_MS
  // room for the one that takes its place, which it signs: GnuTLS and Go count it, although it has the same name
  const pathLength = kind === 'edge' && !root ? 1 : 0
  const excludedDomain = kind === 'server' ? domain : undefined
  const profile = { name, now, lifetimeMs, pathLength, issuer: root, excludedDomain }
  const certificate = await signCa(privateKey, profile)
  const certificatePem = `${certificate.toString('pem')}\n${root?.certificatePem ?? ''}`
  return { id: keyIdOf(privateKey), privateKey, certificatePem }
}

/** The new CA as the one before it signs it: for clients that believe only that one. It has the name of its issuer
 *  (RFC 4210, 4.4.1: new with old), because a CA that may have none below it may still sign its own successor. */
async function signCross(
  privateKey: KeyObject,
  { authority, believedUntil }: Predecessor,
  now: number,
): Promise<string> {
  const certificate = await signCa(privateKey, {
    ...{ name: authority.certificate.subjectName, now, lifetimeMs: believedUntil - now },
    ...{ pathLength: 0, issuer: authority },
  })
  return `${certificate.toString('pem')}\n`
}

async function writeFiles(
  folder: string,
  name: string,
  { privateKey, certificatePem }: MadeAuthority,
  lock: KeyLock | undefined,
): Promise<void> {
  await writePrivateFile(keyFile(folder, name), encodeKey(privateKey, lock))
  await writePrivateFile(certificateFile(folder, name), certificatePem)
}

/** @param name of its files
 *  @throws as `loadAuthorities` */
export async function loadAuthority(
  dataDir: string,
  kind: AuthorityKind,
  { name, lock }: { name: string; lock: KeyLock | undefined },
): Promise<Authority> {
  const folder = path.join(dataDir, FOLDER)
  try {
    const privateKey = await readKey(keyFile(folder, name), lock)
    const certificatePem = await readFile(certificateFile(folder, name), 'utf8')
    const parsed = new X509Certificate(certificatePem)
    if (!parsed.checkPrivateKey(privateKey)) throw new Error('the key belongs to another certificate')
    const signingKey = toSigningKey(privateKey)
    const isSuccessor = kind === 'edge' && name !== firstName(kind) && !isBelowRoot({ certificatePem })
    return await openAuthority({
      kind,
      certificatePem,
      ...(isSuccessor ? { crossPem: await readCross(folder, name) } : {}),
      certificateFile: certificateFile(folder, name),
      signingKey,
    })
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new PosternError(
      'CONFIG_INVALID',
      `the ${kind} CA ${name} in ${folder} cannot be read: ${reason}`,
      {
        hint: 'bring the folder back from a backup; postern-edge init makes a new one in an empty data_dir',
        cause,
      },
    )
  }
}

/** The same authority in another thread: what cannot be handed over is made again. */
export async function openAuthority(kept: KeptAuthority): Promise<Authority> {
  const certificate = new x509.X509Certificate(kept.certificatePem)
  return {
    ...kept,
    certificate,
    subject: new Uint8Array(certificate.subjectName.toArrayBuffer()),
    publicKey: new X509Certificate(kept.certificatePem).publicKey,
    keyIdentifier: await x509.AuthorityKeyIdentifierExtension.create(certificate.publicKey),
  }
}

/** Of the one that was made with the edge. */
function firstName(kind: AuthorityKind): string {
  return `${kind}-ca`
}

function keyFile(folder: string, name: string): string {
  return path.join(folder, `${name}.key`)
}

export function certificateFile(folder: string, name: string): string {
  return path.join(folder, `${name}.pem`)
}

function crossFile(folder: string, name: string): string {
  return path.join(folder, `${name}.cross.pem`)
}

/** Missing in a copy of the folder that is not whole yet. */
async function readCross(folder: string, name: string): Promise<string> {
  const pem = await readFile(crossFile(folder, name), 'utf8')
  new X509Certificate(pem)
  return pem
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}

function isAlreadyThere(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EEXIST' || code === 'ENOTEMPTY'
}
