import { createHash } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import * as v from 'valibot'
import { makePrivateFolder, replacePrivateFile } from '../private-file.ts'

/** What is kept between starts, in `DATA_DIR/acme`: an account for each directory, the certificate with its key in one
 *  file (so that they are replaced in one step), and what went wrong, so that a restart does not ask sooner. */

const Account = v.object({
  directory: v.string(),
  /** PKCS#8, PEM. */
  key: v.string(),
  /** Where the server knows it; not there before it has answered. */
  url: v.optional(v.string()),
  email: v.optional(v.string()),
})

const Certificate = v.object({
  directory: v.string(),
  names: v.array(v.string()),
  cert: v.string(),
  key: v.string(),
})

const Attempts = v.object({
  /** Of which settings: others begin anew. */
  settings: v.string(),
  failures: v.number(),
  /** Epoch milliseconds. */
  notBefore: v.number(),
})

export type KeptAccount = v.InferOutput<typeof Account>
export type KeptCertificate = v.InferOutput<typeof Certificate>
export type KeptAttempts = v.InferOutput<typeof Attempts>

export class AcmeState {
  readonly #folder: string

  constructor(dataDir: string) {
    this.#folder = path.join(dataDir, 'acme')
  }

  /** @throws STATE_INVALID a key that cannot be read is not replaced: rate limits and bindings hang on the account */
  readAccount(directory: URL): Promise<KeptAccount | undefined> {
    return this.#read(Account, accountFile(directory))
  }

  writeAccount(account: KeptAccount): Promise<void> {
    return this.#write(accountFile(new URL(account.directory)), account)
  }

  /** @throws STATE_INVALID */
  readCertificate(): Promise<KeptCertificate | undefined> {
    return this.#read(Certificate, CERTIFICATE)
  }

  writeCertificate(certificate: KeptCertificate): Promise<void> {
    return this.#write(CERTIFICATE, certificate)
  }

  /** @throws STATE_INVALID */
  readAttempts(): Promise<KeptAttempts | undefined> {
    return this.#read(Attempts, ATTEMPTS)
  }

  writeAttempts(attempts: KeptAttempts): Promise<void> {
    return this.#write(ATTEMPTS, attempts)
  }

  async removeAttempts(): Promise<void> {
    await rm(path.join(this.#folder, ATTEMPTS), { force: true })
  }

  async #read<T>(schema: v.GenericSchema<unknown, T>, name: string): Promise<T | undefined> {
    const file = path.join(this.#folder, name)
    try {
      return v.parse(schema, JSON.parse(await readFile(file, 'utf8')))
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw new PosternError('STATE_INVALID', `${file} cannot be read: ${(cause as Error).message}`, {
        hint: 'put it back from a backup, or move it away: the edge then makes a new one',
        cause,
      })
    }
  }

  async #write(name: string, value: object): Promise<void> {
    await makePrivateFolder(this.#folder)
    await replacePrivateFile(path.join(this.#folder, name), `${JSON.stringify(value, null, 2)}\n`)
  }
}

const CERTIFICATE = 'certificate.json'
const ATTEMPTS = 'attempts.json'

function accountFile(directory: URL): string {
  const id = createHash('sha256').update(directory.href).digest('hex').slice(0, 16)
  return `account-${id}.json`
}
