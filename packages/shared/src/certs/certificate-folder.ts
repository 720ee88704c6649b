import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import path from 'node:path'
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
  /** Who signs the edge's own certificate; missing where a public CA does. */
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

const PUBLIC_MODE = 0o644

/** A folder for a new certificate. What was made in it is removed again unless the certificate arrived.
 *  @throws USAGE_INVALID it holds one already, or cannot be written */
export function prepareFolder(
  folder: string,
  keyPem: string | undefined,
): Disposable & {
  write(issued: WrittenCertificate, caPem: string | undefined): void
} {
  const file = (name: keyof typeof NAMES) => path.join(folder, NAMES[name])
  makeFolder(folder)
  // also without a key of ours: it holds the place, and shows that the folder can be written
  createFile(file('certificate'), '', PUBLIC_MODE)
  let made = [file('certificate')]
  const removeAll = () => {
    for (const name of made) rmSync(name, { force: true })
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
      writeCertificate(folder, issued, keyPem)
      made = []
    },
    [Symbol.dispose]: removeAll,
  }
}

/** What lies in a folder, with the key of the renewal that was begun there.
 *  @throws USAGE_INVALID */
export function readFolder(folder: string): { key: string; cert: string; nextKey: string | undefined } {
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
  return { key: read('key'), cert: read('certificate'), nextKey: readNextKey(folder) }
}

export function keepNextKey(folder: string, keyPem: string): void {
  replaceFile(path.join(folder, NAMES.nextKey), keyPem)
}

function readNextKey(folder: string): string | undefined {
  try {
    return readFileSync(path.join(folder, NAMES.nextKey), 'utf8')
  } catch {
    return undefined // none was begun
  }
}

/** Puts a certificate, and its key where it is ours, in place of what was there. */
export function writeCertificate(
  folder: string,
  { certificate, chain }: WrittenCertificate,
  keyPem: string | undefined,
): void {
  const write = (name: keyof typeof NAMES, text: string, mode: number) =>
    replaceFile(path.join(folder, NAMES[name]), text, mode)
  if (keyPem !== undefined) {
    write('client', `${keyPem}${certificate}`, 0o600)
    write('key', keyPem, 0o600)
  }
  write('certificate', certificate, PUBLIC_MODE)
  write('chain', `${certificate}${chain}`, PUBLIC_MODE)
  rmSync(path.join(folder, NAMES.nextKey), { force: true })
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw cannotWrite(folder, (cause as Error).message, cause)
  }
}

function createFile(file: string, text: string, mode: number): void {
  let descriptor: number
  try {
    descriptor = openSync(file, 'wx', mode)
  } catch (cause) {
    const isThere = (cause as NodeJS.ErrnoException).code === 'EEXIST'
    throw cannotWrite(file, isThere ? 'it is there already' : (cause as Error).message, cause)
  }
  try {
    writeSync(descriptor, text)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function cannotWrite(file: string, why: string, cause: unknown): PosternError {
  return new PosternError('USAGE_INVALID', `cannot write ${file}: ${why}`, {
    hint: 'name a new folder with --out; postern certificate renew renews what is in one',
    cause,
  })
}
