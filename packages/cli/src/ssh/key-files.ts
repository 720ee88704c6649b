import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseSshCertificate } from '@postern/shared/certs/ssh-certificate'
import { sshFingerprint } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import { replaceFile } from '@postern/shared/replace-file'
import type { ServiceLabel } from '@postern/shared/service-label'
import { edgeNow, type KnownEdge } from '../credentials/known-edge.ts'
import { readStateFile, removeState, type ShapeValue, writeStateFile } from '../credentials/state-file.ts'
import { readPublicBlob, type SshKeyType } from './key.ts'

/** Key and certificate of a service in `~/.ssh`, where ssh and its configuration can name them, and what the state
 *  folder knows about them. Files there that Postern did not make are left alone. The warm start of `ssh-keysign`
 *  needs nothing but this. */

/** What `~/.ssh` holds of ours for one service. */
const RECORD_SHAPE = {
  host: 'string',
  keyType: 'string',
  /** `SHA256:…` of the public key: how a key file is known to be ours. */
  fingerprint: 'string',
  /** SHA-256 of the certificate's line, hex. */
  certificateHash: 'string',
  /** Epoch milliseconds by the edge's clock. */
  notAfter: 'number',
  /** 1: the host keys of the service wait for somebody to accept them; the edge is asked again each time. */
  hostKeysPending: 'number?',
} as const

export type SshKeyRecord = ShapeValue<typeof RECORD_SHAPE>

/** One service of one edge, parsed: `host` is a label and a known domain. */
export interface SshDestination {
  edge: KnownEdge
  label: ServiceLabel
  host: string
}

export interface SshFiles {
  key: string
  certificate: string
}

/** A certificate is used until a minute before its end: sshd has to look at it before. */
const MARGIN_MS = 60_000
const MAX_FILE_BYTES = 64 * 1024
const HOST = /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/

export function sshFolder(): string {
  return path.join(os.homedir(), '.ssh')
}

/** @throws LABEL_INVALID for a host that could lead out of the folder */
export function sshFilesOf(host: string, folder: string = sshFolder()): SshFiles {
  if (!HOST.test(host) || host.includes('..')) {
    throw new PosternError('LABEL_INVALID', `${JSON.stringify(host)} is not the host of a service`)
  }
  const key = path.join(folder, host)
  return { key, certificate: `${key}-cert.pub` }
}

export function readKeyRecord(destination: SshDestination): SshKeyRecord | undefined {
  return readStateFile(recordFile(destination), RECORD_SHAPE)
}

export function isFresh(
  record: Pick<SshKeyRecord, 'keyType' | 'notAfter' | 'hostKeysPending'>,
  edge: KnownEdge,
  wanted?: SshKeyType,
): boolean {
  if (wanted !== undefined && wanted !== record.keyType) return false
  return record.hostKeysPending !== 1 && record.notAfter - MARGIN_MS > edgeNow(edge)
}

/** Whether key and certificate lie there, belong together, are ours and live long enough. */
export function hasFreshFiles(destination: SshDestination, wanted?: SshKeyType): boolean {
  const record = readKeyRecord(destination)
  if (!record || !isFresh(record, destination.edge, wanted)) return false
  const files = sshFilesOf(destination.host)
  return (
    fingerprintOfKeyFile(files.key) === record.fingerprint &&
    hashOf(readOwnFile(files.certificate) ?? '') === record.certificateHash
  )
}

/** The public key in our own key file, to certify it again.
 *  @throws SSH_FILE_FOREIGN when key or certificate is not ours */
export function readOwnKey(destination: SshDestination): { blob: Buffer; type: SshKeyType } | undefined {
  const record = readKeyRecord(destination)
  const files = sshFilesOf(destination.host)
  const key = readOwnFile(files.key)
  const blob = key === undefined ? undefined : readPublicBlob(key)
  if (key !== undefined && (!record || !blob || sshFingerprint(blob) !== record.fingerprint)) {
    throw foreign(files.key)
  }
  const certificate = readOwnFile(files.certificate)
  if (certificate !== undefined && (!record || !isOwnCertificate(certificate, record))) {
    throw foreign(files.certificate)
  }
  return blob && record ? { blob, type: record.keyType as SshKeyType } : undefined
}

/** Call under the lock, after `readOwnKey` has found that nobody else's files lie there. The record is written before
 *  the files: what a crash leaves is known to be ours.
 *  @param texts `key` is left out when the key stays */
export function writeFiles(
  destination: SshDestination,
  record: SshKeyRecord,
  texts: { key?: string | undefined; certificate: string },
): void {
  const files = sshFilesOf(destination.host)
  try {
    removeLeftovers(files.key)
    if (texts.key !== undefined) {
      removeState(files.certificate)
      removeState(files.key)
    }
    writeStateFile(recordFile(destination), record)
    if (texts.key !== undefined) replaceFile(files.key, texts.key)
    replaceFile(files.certificate, texts.certificate)
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    throw new PosternError('STATE_INVALID', `cannot write ${files.key}: ${(cause as Error).message}`, {
      cause,
      hint: 'make the folder writable for you',
    })
  }
}

/** Removes keys and certificates of every service of this edge. Other people's files stay, and so does what is known
 *  about host keys. */
export function forgetSshKeys(edge: Pick<KnownEdge, 'folder'>): void {
  for (const name of listRecords(edge)) {
    const file = path.join(recordsFolder(edge), name)
    const record = readStateFile(file, RECORD_SHAPE)
    if (record) forgetFiles(record)
    removeState(file)
  }
}

export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** Where the locks, the records and the host keys of this edge's services lie. */
export function recordsFolder(edge: Pick<KnownEdge, 'folder'>): string {
  return path.join(edge.folder, 'ssh')
}

function forgetFiles(record: SshKeyRecord): void {
  try {
    const files = sshFilesOf(record.host)
    if (fingerprintOfKeyFile(files.key) === record.fingerprint) removeState(files.key)
    const certificate = readOwnFile(files.certificate)
    if (certificate !== undefined && hashOf(certificate) === record.certificateHash) {
      removeState(files.certificate)
    }
  } catch {
    // not readable: not ours any more
  }
}

function listRecords(edge: Pick<KnownEdge, 'folder'>): string[] {
  try {
    return readdirSync(recordsFolder(edge)).filter((name) => name.endsWith('.key.json'))
  } catch {
    return []
  }
}

function recordFile({ edge, label }: Pick<SshDestination, 'edge' | 'label'>): string {
  return path.join(recordsFolder(edge), `${label}.key.json`)
}

/** Temporary files of a process that was killed hold a private key. */
function removeLeftovers(keyFile: string): void {
  const folder = path.dirname(keyFile)
  const own = new RegExp(`^\\.${path.basename(keyFile).replaceAll('.', '\\.')}(-cert\\.pub)?\\.[0-9a-f]{12}$`)
  try {
    for (const name of readdirSync(folder)) if (own.test(name)) removeState(path.join(folder, name))
  } catch {
    // there is no folder yet
  }
}

function isOwnCertificate(text: string, record: SshKeyRecord): boolean {
  if (hashOf(text) === record.certificateHash) return true
  try {
    return sshFingerprint(parseSshCertificate(text).subject.blob) === record.fingerprint
  } catch {
    return false
  }
}

/** @returns undefined when there is no file, or it is not of our kind */
function fingerprintOfKeyFile(file: string): string | undefined {
  const blob = readPublicBlob(readOwnFile(file) ?? '')
  return blob && sshFingerprint(blob)
}

/** @throws SSH_FILE_FOREIGN for links, folders and whatever else we do not make */
function readOwnFile(file: string): string | undefined {
  try {
    const stats = lstatSync(file)
    if (!stats.isFile() || stats.size > MAX_FILE_BYTES) throw foreign(file)
    return readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function foreign(file: string): PosternError {
  return new PosternError('SSH_FILE_FOREIGN', `${file} is not a file that postern made, and stays as it is`)
}
