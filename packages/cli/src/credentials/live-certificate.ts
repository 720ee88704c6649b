import { PosternError, toPosternError } from '@postern/shared/errors'
import { SignInDesk } from './sign-in-desk.ts'

/** The certificate of a program that stays: renewed when somebody needs it, once for all who wait, and never in the
 *  way of what already runs. */

export interface CertificateSource<Certificate> {
  /** What is stored and lives long enough; undefined when there is none. */
  read(): Certificate | undefined
  /** Gets a new one. @param mayAsk a person may be asked to sign in */
  fetch(mayAsk: boolean): Promise<Certificate>
  forget(): void
}

/** A sign-in on the way, for whoever watches. */
export type SignInEvent =
  | { event: 'sign-in.needed'; code: string; message: string; hint: string }
  | { event: 'sign-in.failed'; code: string; message: string }

export interface LiveCertificateOptions {
  /** Somebody is there who can sign in. */
  mayAsk: boolean
  report: (event: SignInEvent) => void
  /** How long one caller waits. A sign-in takes as long as a person does. */
  waitMs?: number
  /** Shared by the certificates of one edge: one sign-in is enough for all of them. */
  desk?: SignInDesk
}

const WAIT_MS = 30_000

export class LiveCertificate<Certificate> {
  readonly #source: CertificateSource<Certificate>
  readonly #options: LiveCertificateOptions
  readonly #desk: SignInDesk
  #fetching: Promise<Certificate> | undefined

  constructor(source: CertificateSource<Certificate>, options: LiveCertificateOptions) {
    this.#source = source
    this.#options = options
    this.#desk = options.desk ?? new SignInDesk()
  }

  /** @throws SIGN_IN_REQUIRED · what the edge says about a certificate · the reason of the signal */
  take(signal?: AbortSignal): Promise<Certificate> {
    return this.#take(signal, this.#options.waitMs ?? WAIT_MS)
  }

  /** The same for whoever starts the program, and waits for a sign-in to its end. */
  takeFirst(signal?: AbortSignal): Promise<Certificate> {
    return this.#take(signal)
  }

  /** The edge does not take it any more. */
  forget(): void {
    this.#source.forget()
  }

  async #take(signal: AbortSignal | undefined, waitMs?: number): Promise<Certificate> {
    const stored = this.#source.read()
    if (stored) return stored
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined
    })
    const { promise: over, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(signal!.reason)
    const timer = waitMs === undefined ? undefined : setTimeout(() => reject(this.#explainDelay()), waitMs)
    signal?.addEventListener('abort', onAbort)
    if (signal?.aborted) onAbort()
    try {
      return await Promise.race([this.#fetching, over])
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  async #fetch(): Promise<Certificate> {
    await this.#desk.free() // who is being asked signs in for us too
    try {
      return await this.#fetchQuietly()
    } catch (caught) {
      if (!needsSignIn(caught) || !this.#options.mayAsk) throw caught
      if (this.#desk.isAsking) return this.#fetch()
      if (this.#desk.hasAskedInVain) throw caught
      return this.#ask(caught)
    }
  }

  async #fetchQuietly(): Promise<Certificate> {
    const certificate = await this.#source.fetch(false)
    this.#desk.noteSignedIn()
    return certificate
  }

  async #ask({ code, message, hint }: PosternError): Promise<Certificate> {
    const { report } = this.#options
    report({ event: 'sign-in.needed', code, message, hint })
    try {
      return await this.#desk.ask(() => this.#source.fetch(true))
    } catch (caught) {
      const error = toPosternError(caught, 'INTERNAL', String(caught))
      report({ event: 'sign-in.failed', code: error.code, message: error.message })
      throw error
    }
  }

  #explainDelay(): PosternError {
    return this.#desk.isAsking
      ? new PosternError('SIGN_IN_REQUIRED', 'nobody has signed in yet', {
          hint: 'finish the sign-in, and connect again',
        })
      : new PosternError('EDGE_UNREACHABLE', 'the edge gave no certificate in time')
  }
}

function needsSignIn(error: unknown): error is PosternError {
  return error instanceof PosternError && error.exitCode === 4
}
