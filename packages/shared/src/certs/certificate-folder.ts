import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { describeDiskFailure } from '../disk-failure.ts'
import { PosternError } from '../errors.ts'
import { replaceFile } from '../replace-file.ts'
import { unreadableFile } from '../unreadable-file.ts'

/** Where a program finds its certificate, in the files that stunnel, Python and curl read as they are. */

const NAMES = {
  /** Mode 600, like `client.pem`. */
  key: 'key.pem',
  certificate: 'certificate.pem',
  /** The certificate and the authorities above it. */
  chain: 'chain.pem',
  /** Key and certificate in one file: it is replaced at once, and nobody reads a key with the certificate of another. */
  client: 'client.pem',
  /** The same of a private service. */
  server: 'server.pem',
  /** Who signs the edge's own certificate; missing where a public CA does. Of a private service, who signs its own. */
  ca: 'ca.pem',
  /** Key of a renewal that was begun: it must be asked for again with the same one. */
  nextKey: 'next-key.pem',
} as const

/** PEM. */
interface WrittenCertificate {
  certificate: string
  /** The authorities above it, the nearest first. */
  chain: string
}

/** Which file has key and certificate in one. */
type Together = 'client' | 'server'

const PUBLIC_MODE = 0o644
const CERTIFICATE = '-----BEGIN CERTIFICATE-----'

/** A folder for a new certificate. What was made in it is removed again unless the certificate arrived.
 *  @throws USAGE_INVALID it holds one already, or cannot be written */
export function prepareFolder(
  folder: string,
  keyPem: string | undefined,
  together: Together = 'client',
): Disposable & {
  write(issued: WrittenCertificate, caPem: string | undefined): void
} {
  const file = (name: keyof typeof NAMES) => path.join(folder, NAMES[name])
  const isNew = makeFolder(folder)
  // also without a key of ours: it holds the place, and shows that the folder can be written
  createFile(file('certificate'), '', PUBLIC_MODE)
  let made = [file('certificate')]
  const removeAll = () => {
    for (const name of made) rmSync(name, { force: true })
    if (isNew && made.length > 0) removeEmpty(folder)
  }
  try {
    if (keyPem !== undefined) {
      createFile(file('key'), keyPem, 0o600)
      made.push(file('key'))
    }
  } catch (error) {
    removeAll()
    throw error
  }
  return {
    write(issued, caPem) {
      if (caPem !== undefined) replaceFile(file('ca'), caPem, PUBLIC_MODE)
      writeCertificate(folder, issued, keyPem, together)
      made = []
    },
    [Symbol.dispose]: removeAll,
  }
}

/** All of it PEM. */
interface CertificateFolder {
  key: string
  cert: string
  /** Of the renewal that was begun there. */
  nextKey: string | undefined
  /** Who signs the edge's own certificate; undefined stands for the public CAs. */
  ca: string | undefined
}

/** @throws USAGE_INVALID */
export function readFolder(folder: string): CertificateFolder {
  const { key, cert } = readClient(folder) ?? readPair(folder)
  const nextKey = readIfThere(folder, 'nextKey')
  // that renewal has worked, and was cut off before it was done with its files
  return {
    key,
    cert,
    nextKey: nextKey?.trim() === key.trim() ? undefined : nextKey,
    ca: readIfThere(folder, 'ca'),
  }
}

/** Key and certificate in one file belong together, whoever renewed them and whatever cut them off. Of files that do not,
 *  the older certificate would be renewed a second time, which ends its lineage. */
function readClient(folder: string): { key: string; cert: string } | undefined {
  const client = readIfThere(folder, 'client') ?? ''
  const end = client.indexOf(CERTIFICATE)
  return end > 0 ? { key: client.slice(0, end), cert: client.slice(end) } : undefined
}

/** For a key that was never ours, and lies beside the certificate of its request. */
function readPair(folder: string): { key: string; cert: string } {
  const read = (name: keyof typeof NAMES) => {
    const file = path.join(folder, NAMES[name])
    try {
      return readFileSync(file, 'utf8')
    } catch (cause) {
      throw unreadableFile(
        file,
        cause,
        'name a folder that postern certificate issue has written, with its key',
      )
    }
  }
  return { key: read('key'), cert: read('certificate') }
}

export function keepNextKey(folder: string, keyPem: string): void {
  replaceFile(path.join(folder, NAMES.nextKey), keyPem)
}

function readIfThere(folder: string, name: keyof typeof NAMES): string | undefined {
  try {
    return readFileSync(path.join(folder, NAMES[name]), 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw unreadableFile(path.join(folder, NAMES[name]), cause)
  }
}

/** The edge may be known by other CAs than before. */
export function replaceCa(folder: string, caPem: string): void {
  replaceFile(path.join(folder, NAMES.ca), caPem, PUBLIC_MODE)
}

/** Puts a certificate, and its key where it is ours, in place of what was there. */
export function writeCertificate(
  folder: string,
  { certificate, chain }: WrittenCertificate,
  keyPem: string | undefined,
  together: Together = 'client',
): void {
  const write = (name: keyof typeof NAMES, text: string, mode: number) =>
    replaceFile(path.join(folder, NAMES[name]), text, mode)
  if (keyPem !== undefined) {
    write(together, `${keyPem}${certificate}`, 0o600)
    write('key', keyPem, 0o600)
  }
  write('certificate', certificate, PUBLIC_MODE)
  write('chain', `${certificate}${chain}`, PUBLIC_MODE)
  rmSync(path.join(folder, NAMES.nextKey), { force: true })
}

/** @returns whether it was not there before */
function makeFolder(folder: string): boolean {
  try {
    return mkdirSync(folder, { recursive: true, mode: 0o700 }) !== undefined
  } catch (cause) {
    const isFile = (cause as NodeJS.ErrnoException).code === 'EEXIST'
    throw cannotWrite(folder, cause, isFile ? 'it is a file, and no folder' : undefined)
  }
}

function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch {
    // somebody else has put something there
  }
}

function createFile(file: string, text: string, mode: number): void {
  let descriptor: number
  try {
    descriptor = openSync(file, 'wx', mode)
  } catch (cause) {
    const isThere = (cause as NodeJS.ErrnoException).code === 'EEXIST'
    throw cannotWrite(file, cause, isThere ? 'it is there already' : undefined)
  }
  try {
    writeSync(descriptor, text)
    fsyncSync(descriptor)
  } catch (cause) {
    rmSync(file, { force: true })
    throw cannotWrite(file, cause)
  } finally {
    closeSync(descriptor)
  }
}

/** @param why in words; left out: what the disk says */
function cannotWrite(file: string, cause: unknown, why?: string): PosternError {
  const failure = why === undefined ? describeDiskFailure(cause) : undefined
  const reason = why ?? failure?.reason ?? (cause as Error).message
  return new PosternError('USAGE_INVALID', `cannot write ${file}: ${reason}`, {
    hint: failure?.hint ?? 'name a new folder with --out; postern certificate renew renews what is in one',
    cause,
  })
}
