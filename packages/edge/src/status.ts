import { readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import * as v from 'valibot'
import { replacePrivateFile } from './private-file.ts'

/** What a running edge says about itself to whoever may read its `data_dir`: a file that it writes whenever something in
 *  it changes and removes when it stops. So `postern-edge status` needs no session, no port and no trust in a certificate
 *  that may be just what is wrong. Times are epoch milliseconds. */

const time = v.number()

const CertificateStatus = v.object({
  /** `internal CA`, `files`, or `ACME`. */
  source: v.string(),
  names: v.array(v.string()),
  serial: v.string(),
  notAfter: time,
  /** The CA's first certificate is still to come; what is shown is one of the internal CA. */
  isAwaited: v.boolean(),
  /** How the names are proven. */
  challenge: v.optional(v.string()),
  /** When the edge gets the next one by itself. */
  nextAttemptAt: v.optional(time),
  /** When the CA advises to get it. */
  suggestedWindow: v.optional(v.object({ start: time, end: time })),
  /** While another CA of the edge's takes over: when the one before is believed no more. */
  caOverlapUntil: v.optional(time),
  /** Why there is no newer one. */
  failure: v.optional(
    v.object({ code: v.string(), message: v.string(), hint: v.string(), at: time, inARow: v.number() }),
  ),
})

/** How the keys of this edge compare with those of others on its store. */
const KeysStatus = v.object({
  /** With so many. */
  compared: v.number(),
  differing: v.array(
    v.object({
      /** Where the other one runs. */
      edge: v.string(),
      kinds: v.array(v.string()),
      /** Since then, or from then on. */
      from: time,
      isPresent: v.boolean(),
    }),
  ),
})

const EdgeStatus = v.object({
  pid: v.number(),
  origin: v.string(),
  version: v.string(),
  startedAt: time,
  certificate: CertificateStatus,
  /** Where edges may share the store. */
  keys: v.optional(KeysStatus),
})

export type KeysStatus = v.InferOutput<typeof KeysStatus>
export type CertificateStatus = v.InferOutput<typeof CertificateStatus>
export type EdgeStatus = v.InferOutput<typeof EdgeStatus>

const FILE = 'status.json'

/** @returns undefined when no edge has left one
 *  @throws STATE_INVALID */
export async function readStatus(dataDir: string): Promise<EdgeStatus | undefined> {
  const file = path.join(dataDir, FILE)
  try {
    return v.parse(EdgeStatus, JSON.parse(await readFile(file, 'utf8')))
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new PosternError('STATE_INVALID', `${file} cannot be read: ${message}`, {
      hint: 'run this as the user of the edge, or as root; the edge writes the file anew when it starts',
      cause,
    })
  }
}

/** An edge that was killed leaves its file behind. */
export function isProcess(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' // another user's
  }
}

/** Writes it again each time it is told to, one after the other; a disk that is full stops nothing. */
export class StatusFile implements AsyncDisposable {
  readonly #file: string
  readonly #log: Logger
  #writing: Promise<void> = Promise.resolve()

  constructor(dataDir: string, log: Logger) {
    this.#file = path.join(dataDir, FILE)
    this.#log = log
  }

  write(status: EdgeStatus): void {
    this.#writing = this.#writing
      .then(() => replacePrivateFile(this.#file, `${JSON.stringify(status, null, 2)}\n`))
      .catch((error: unknown) => this.#log.warn('status.not_written', { error }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing
    await rm(this.#file, { force: true })
  }
}
