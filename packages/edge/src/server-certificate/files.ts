import { open } from 'node:fs/promises'
import { PosternError } from '@postern/shared/errors'
import type { ServerIdentity } from '../flow/rooms.ts'
import { checkPair } from './pair.ts'

/** A certificate that somebody else renews (certbot, a secret store): read again when its files have changed. They are
 *  read and compared, not watched: a link in a folder above them is what certbot and Kubernetes turn, and no watch of the
 *  file hears of that. */

export interface CertificateFiles {
  certificateFile: string
  keyFile: string
}

const LOOK_EVERY_MS = 2_000
const MAX_PEM_BYTES = 256 * 1024

/** @throws TLS_FILES_INVALID */
export async function readCertificateFiles(
  { certificateFile, keyFile }: CertificateFiles,
  check: { domain: string; now?: number },
): Promise<ServerIdentity> {
  const [cert, key] = await Promise.all([readPem(certificateFile), readPem(keyFile)])
  const pair = { cert, key }
  try {
    const names = namesOfEdge(check.domain)
    const now = check.now === undefined ? {} : { now: check.now }
    checkPair(pair, { names, keyName: keyFile, ...now })
    return pair
  } catch (cause) {
    throw new PosternError('TLS_FILES_INVALID', `${certificateFile} ${(cause as Error).message}`, { cause })
  }
}

/** What every certificate of the edge must be valid for: people and programs come to these. */
export function namesOfEdge(domain: string): string[] {
  return [domain, `mtls.${domain}`]
}

/** Looks every two seconds whether the files hold another pair, and hands a good one on. A bad one is told once, and only
 *  when it is still there at the next look: two files cannot be replaced in one moment.
 *  @param shown the pair that is in use */
export function watchCertificateFiles(
  files: CertificateFiles,
  shown: ServerIdentity,
  parts: {
    domain: string
    clock: () => number
    onChanged: (pair: ServerIdentity) => void
    onRefused: (error: PosternError) => void
  },
): Disposable {
  let current = shown
  let doubtful: string | undefined
  let told: string | undefined
  const look = async () => {
    try {
      const pair = await readCertificateFiles(files, { domain: parts.domain, now: parts.clock() })
      doubtful = told = undefined
      if (pair.cert === current.cert && pair.key === current.key) return
      current = pair
      parts.onChanged(pair)
    } catch (cause) {
      const error = cause as PosternError
      if (error.message === doubtful && error.message !== told) {
        told = error.message
        parts.onRefused(error)
      }
      doubtful = error.message
    }
  }
  let looking = false
  const timer = setInterval(() => {
    if (looking) return // a network file system that takes its time
    looking = true
    void look().finally(() => {
      looking = false
    })
  }, LOOK_EVERY_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** @throws TLS_FILES_INVALID */
async function readPem(file: string): Promise<string> {
  try {
    await using handle = await open(file)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAX_PEM_BYTES + 1), 0)
    if (bytesRead > MAX_PEM_BYTES) throw new Error(`it has more than ${MAX_PEM_BYTES} bytes`)
    return buffer.toString('utf8', 0, bytesRead)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    throw new PosternError('TLS_FILES_INVALID', `the file ${file} cannot be read (${code ?? message})`, {
      cause,
    })
  }
}
