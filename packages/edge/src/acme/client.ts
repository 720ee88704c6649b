import type { KeyObject } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { type ErrorCode, PosternError } from '@postern/shared/errors'
import { calculateJwkThumbprint, exportJWK, FlattenedSign, type JWK } from 'jose'
import type * as v from 'valibot'
import {
  type AcmeAnswer,
  Directory,
  describeProblem,
  type Problem,
  problemKind,
  RenewalInfo,
  readMessage,
  readProblem,
  readRetryAfter,
} from './messages.ts'
import { requestAcme } from './request.ts'

/** Requests as one account of an ACME server (RFC 8555 §6): signed, each with a nonce that the server gave. Made for one
 *  attempt; keeps nothing. */

export interface AcmeServer {
  directory: URL
  /** Who signs the server's own certificate; undefined stands for the public CAs. */
  caPem: string | undefined
}

/** A server may refuse a nonce for no fault of ours; one that refuses so many refuses all. */
const MAX_NONCES = 25
const MAX_KEPT_NONCES = 10
const FIRST_POLL_MS = 500
const MAX_POLL_MS = 15_000

export class AcmeClient {
  /** Ends whatever is under way. */
  readonly signal: AbortSignal
  /** The account's URL: from then on it stands for the key. */
  account: string | undefined
  readonly #server: AcmeServer
  readonly #key: KeyObject
  readonly #clock: () => number
  readonly #nonces: string[] = []
  #directory: Directory | undefined

  constructor(server: AcmeServer, key: KeyObject, parts: { signal: AbortSignal; clock: () => number }) {
    this.#server = server
    this.#key = key
    this.signal = parts.signal
    this.#clock = parts.clock
  }

  /** @throws ACME_UNREACHABLE · ACME_PROTOCOL_INVALID · what the server says */
  async directory(): Promise<Directory> {
    if (this.#directory) return this.#directory
    const answer = await this.#request(this.#server.directory.href, 'GET')
    if (answer.status !== 200) throw this.#explainNoDirectory(answer)
    this.#directory = readMessage(Directory, answer, 'directory')
    return this.#directory
  }

  /** @param payload left out: only reads (POST-as-GET)
   *  @throws ACME_UNREACHABLE · ACME_PROTOCOL_INVALID · ACME_RATE_LIMITED · ACME_REFUSED */
  async post(url: string, payload?: object): Promise<AcmeAnswer> {
    for (let tries = 0; tries < MAX_NONCES; tries++) {
      const nonce = this.#nonces.pop() ?? (await this.#newNonce())
      const answer = await this.#request(url, 'POST', await this.#sign({ url, nonce }, payload))
      if (answer.status < 400) return answer
      if (problemKind(readProblem(answer)) !== 'badNonce') throw this.#explain(answer)
    }
    throw new PosternError(
      'ACME_PROTOCOL_INVALID',
      `the ACME server has refused ${MAX_NONCES} nonces of its own`,
    )
  }

  async read<T>(schema: v.GenericSchema<unknown, T>, url: string, what: string): Promise<T> {
    return readMessage(schema, await this.post(url), what)
  }

  /** Reads again until `isOver`, as rarely as the server asks. */
  async poll<T>(
    schema: v.GenericSchema<unknown, T>,
    url: string,
    { what, isOver }: { what: string; isOver: (read: T) => boolean },
  ): Promise<T> {
    for (let waitMs = FIRST_POLL_MS; ; waitMs = Math.min(waitMs * 1.5, MAX_POLL_MS)) {
      const answer = await this.post(url)
      const read = readMessage(schema, answer, what)
      if (isOver(read)) return read
      const asked = readRetryAfter(answer.header('retry-after'), this.#clock()) ?? 0
      await pause(Math.max(waitMs, asked), undefined, { signal: this.signal, ref: false })
    }
  }

  /** When the CA advises to replace this certificate (RFC 9773 §4). Asked without the account.
   *  @param id see `certificateId`
   *  @returns undefined where the CA gives no such advice */
  async renewalInfo(id: string): Promise<(RenewalInfo & { retryAfterMs: number | undefined }) | undefined> {
    const { renewalInfo } = await this.directory()
    if (renewalInfo === undefined) return undefined
    const answer = await this.#request(`${renewalInfo.replace(/\/$/, '')}/${id}`, 'GET')
    if (answer.status !== 200) throw this.#explain(answer)
    const retryAfterMs = readRetryAfter(answer.header('retry-after'), this.#clock())
    return { ...readMessage(RenewalInfo, answer, 'renewal information'), retryAfterMs }
  }

  /** What proves that this account answers (RFC 8555 §8.1). */
  async keyAuthorization(token: string): Promise<string> {
    return `${token}.${await calculateJwkThumbprint(await this.#jwk())}`
  }

  /** The account's public key, signed with a key that the CA has given out (RFC 8555 §7.3.4). */
  async bindExternalAccount(url: string, { keyId, hmacKey }: ExternalAccount): Promise<object> {
    const payload = new TextEncoder().encode(JSON.stringify(await this.#jwk()))
    return new FlattenedSign(payload)
      .setProtectedHeader({ alg: 'HS256', kid: keyId, url })
      .sign(Buffer.from(hmacKey, 'base64url'))
  }

  async #jwk(): Promise<JWK> {
    const { kty, crv, x, y } = await exportJWK(this.#key)
    return { kty, crv, x, y } as JWK // never the private part
  }

  async #sign(header: { url: string; nonce: string }, payload?: object): Promise<string> {
    const bytes = payload === undefined ? new Uint8Array() : new TextEncoder().encode(JSON.stringify(payload))
    const who = this.account === undefined ? { jwk: await this.#jwk() } : { kid: this.account }
    const signed = await new FlattenedSign(bytes)
      .setProtectedHeader({ alg: 'ES256', ...header, ...who })
      .sign(this.#key)
    return JSON.stringify(signed)
  }

  async #newNonce(): Promise<string> {
    const { newNonce } = await this.directory()
    const answer = await this.#request(newNonce, 'HEAD')
    const nonce = this.#nonces.pop()
    if (nonce !== undefined) return nonce
    if (answer.status >= 400) throw this.#explain(answer)
    throw new PosternError('ACME_PROTOCOL_INVALID', 'the ACME server gives no nonce')
  }

  async #request(url: string, method: 'GET' | 'HEAD' | 'POST', body?: string): Promise<AcmeAnswer> {
    const { caPem } = this.#server
    const answer = await requestAcme(url, {
      method,
      signal: this.signal,
      caPem,
      ...(body === undefined ? {} : { body }),
    })
    const nonce = answer.header('replay-nonce')
    if (nonce !== undefined && /^[A-Za-z0-9_-]{1,512}$/.test(nonce) && this.#nonces.length < MAX_KEPT_NONCES)
      this.#nonces.push(nonce)
    return answer
  }

  /** Whatever answers there with words of its own: who has mistyped the address looks for the mistake in the CA. */
  #explainNoDirectory(answer: AcmeAnswer): PosternError {
    const explained = this.#explain(answer)
    if (explained.code !== 'ACME_REFUSED') return explained
    const { href } = this.#server.directory
    return new PosternError(
      'ACME_PROTOCOL_INVALID',
      `${href} is no directory of an ACME server: it answers with status ${answer.status}`,
    )
  }

  #explain(answer: AcmeAnswer): PosternError {
    const problem = readProblem(answer)
    const retryAfterMs = readRetryAfter(answer.header('retry-after'), this.#clock())
    const { host } = this.#server.directory
    const said = problem.type || problem.detail ? describeProblem(problem) : `status ${answer.status}`
    return new PosternError(codeOf(answer.status, problem), `the ACME server ${host} refuses: ${said}`, {
      details: { status: answer.status, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
    })
  }
}

export interface ExternalAccount {
  keyId: string
  /** base64url */
  hmacKey: string
}

function codeOf(status: number, problem: Problem): ErrorCode {
  if (status === 429 || problemKind(problem) === 'rateLimited') return 'ACME_RATE_LIMITED'
  return status >= 500 ? 'ACME_UNREACHABLE' : 'ACME_REFUSED'
}
