import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { PosternError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import type { ChallengeSolver, Proof } from './challenges.ts'

/** DNS-01 (RFC 8555 §8.4): a program of the operator's own writes the record, because every DNS service has another way.
 *
 *    HOOK present _acme-challenge.edge.mycorp.com VALUE      adds a TXT record, and ends once it can be looked up
 *    HOOK cleanup _acme-challenge.edge.mycorp.com VALUE      removes that one
 *
 *  A name and its wildcard have the same record name, so records are added, never replaced. Nothing here is secret. */

const PRESENT_TIMEOUT_MS = 5 * 60_000
/** Shorter: an edge that stops waits for it. */
const CLEANUP_TIMEOUT_MS = 30_000
const MAX_OUTPUT_BYTES = 64 * 1024
const MAX_TOLD = 300

export class DnsHook implements ChallengeSolver {
  readonly type = 'dns-01'
  readonly #program: string
  readonly #log: Logger

  constructor(program: string, log: Logger) {
    this.#program = program
    this.#log = log
  }

  async present({ name, keyAuthorization }: Proof, signal: AbortSignal): Promise<AsyncDisposable> {
    const record = `_acme-challenge.${name}`
    const value = createHash('sha256').update(keyAuthorization).digest('base64url')
    const cleanUp = async () => {
      // also while the edge stops; what stays behind does no harm
      await this.#run(['cleanup', record, value], { timeoutMs: CLEANUP_TIMEOUT_MS }).catch((error: unknown) =>
        this.#log.warn('acme.hook_failed', { error }),
      )
    }
    try {
      await this.#run(['present', record, value], { timeoutMs: PRESENT_TIMEOUT_MS, signal })
    } catch (error) {
      await cleanUp()
      throw error
    }
    return { [Symbol.asyncDispose]: cleanUp }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** @throws ACME_HOOK_FAILED with the last line that it said */
  async #run(args: string[], limits: { timeoutMs: number; signal?: AbortSignal }): Promise<void> {
    const { timeoutMs, signal } = limits
    try {
      await promisify(execFile)(this.#program, args, {
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: MAX_OUTPUT_BYTES,
        ...(signal ? { signal } : {}),
      })
    } catch (cause) {
      const { code, killed, stderr = '' } = cause as { code?: unknown; killed?: boolean; stderr?: string }
      const how = killed ? `was ended after ${timeoutMs / 1_000} s` : `failed (${code})`
      const said = stderr
        .trim()
        .split('\n')
        .at(-1)
        ?.replace(/\p{C}+/gu, ' ')
        .slice(0, MAX_TOLD)
      const message = `${this.#program} ${args[0]} ${how}${said ? `: ${said}` : ''}`
      throw new PosternError('ACME_HOOK_FAILED', message, { cause })
    }
  }
}
