import { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import type Provider from 'oidc-provider'
import { networkOf } from '../limits/network.ts'
import { useOnce } from '../store/replay-guards.ts'
import type { Database } from '../store/schema.ts'
import type { UpstreamAccount } from './upstream.ts'

/** Codes that programs without a browser show and people type (RFC 8628): who asked for one, who answers it, and
 *  how often somebody may try. Refuses to answer a code twice and to be asked for codes at will. */

type DeviceCode = InstanceType<Provider['DeviceCode']>

/** What stands on the confirmation page about the program that waits. */
export interface WaitingDevice {
  code: DeviceCode
  /** Where it asked from. */
  address: string
  /** As it shows it: `BCDF-GHJK`. */
  userCode: string
}

/** 20^8 codes: with ten tries in ten minutes nobody guesses one of them. */
export const USER_CODE_MASK = '****-****'

/** As people type it: lower case, with or without the hyphen, with blanks.
 *  @returns undefined when it cannot be a code */
export function parseUserCode(text: string): string | undefined {
  const code = text.slice(0, 100).toUpperCase().replace(/[\s-]/g, '')
  return /^[BCDFGHJKLMNPQRSTVWXZ]{8}$/.test(code) ? code : undefined
}

/** @returns undefined when nothing waits for that code: unknown, answered or too old */
export async function findByUserCode(
  provider: Provider,
  userCode: string,
): Promise<WaitingDevice | undefined> {
  return asWaiting(await provider.DeviceCode.findByUserCode(userCode))
}

/** The same for the code that a sign-in was begun for. */
export async function findWaitingDevice(
  provider: Provider,
  deviceCode: string,
): Promise<WaitingDevice | undefined> {
  return asWaiting(await provider.DeviceCode.find(deviceCode))
}

function asWaiting(code: DeviceCode | undefined): WaitingDevice | undefined {
  if (!code || code.isExpired || code.accountId || code.error || code.consumed) return undefined
  const address = code.deviceInfo?.address
  const { userCode } = code
  return {
    code,
    address: typeof address === 'string' ? address : 'unknown',
    userCode: `${userCode.slice(0, 4)}-${userCode.slice(4)}`,
  }
}

/** Of all who press the button for one code, the first. */
export function claimDevice(db: Kysely<Database>, { code }: WaitingDevice, now: number): Promise<boolean> {
  return useOnce(db, `device-code:${code.jti}`, now + (code.remainingTTL + 60) * 1_000)
}

/** The next poll of the program gets its tokens. */
export async function approveDevice(
  { code }: WaitingDevice,
  grant: { accountId: string; grantId: string; scope: string; account: UpstreamAccount },
): Promise<void> {
  const { authTime, acr, amr } = grant.account
  code.accountId = grant.accountId
  code.grantId = grant.grantId
  code.scope = grant.scope
  if (authTime !== undefined) code.authTime = authTime
  if (acr !== undefined) code.acr = acr
  if (amr !== undefined) code.amr = amr
  await code.save()
}

export const GIVEN_UP = 'the sign-in was refused or given up'

/** The next poll of the program is told no, and why. */
export async function denyDevice({ code }: WaitingDevice, reason: string = GIVEN_UP): Promise<void> {
  code.error = 'access_denied'
  code.errorDescription = reason
  await code.save()
}

/** `prompt=login` is a request that a provider may ignore; where it says when the person signed in, that counts.
 *  @param beganAt when the browser was sent there, epoch milliseconds
 *  @throws LOGIN_REFUSED */
export function requireFreshSignIn(account: UpstreamAccount, beganAt: number): void {
  if (account.authTime === undefined || account.authTime * 1_000 >= beganAt - CLOCK_TOLERANCE_MS) return
  throw new PosternError(
    'LOGIN_REFUSED',
    'the identity provider did not ask you to sign in again, which a code from another machine needs',
    {
      hint: 'sign out at the identity provider and try again',
      details: { subject: account.subject, email: account.email },
    },
  )
}

const CLOCK_TOLERANCE_MS = 60_000

export interface CodeLimits {
  /** Wrong codes per address and window. */
  wrongPerAddress: number
  wrongInTotal: number
  /** Sign-ins that may be begun for one code. */
  perCode: number
  windowMs: number
}

/** Counts what people, and others, type. In memory: codes live for minutes only. Every try is counted before it
 *  is looked at, so that many at once do not slip through, and a good one is given back. */
export class CodeAttempts {
  readonly #limits: CodeLimits
  readonly #tries = new Map<string, number>()
  readonly #begun = new Map<string, number>()
  #inTotal = 0
  #windowEnd = 0

  constructor(limits: CodeLimits) {
    this.#limits = limits
  }

  /** @returns to be called when the code was right
   *  @throws RATE_LIMITED */
  begin(address: string, now: number): () => void {
    this.#forgetOld(now)
    const network = networkOf(address)
    const tries = this.#tries.get(network) ?? 0
    if (tries >= this.#limits.wrongPerAddress || this.#inTotal >= this.#limits.wrongInTotal) {
      throw new PosternError('RATE_LIMITED', 'too many wrong codes were typed', {
        hint: 'wait ten minutes, run the command again and type its new code',
      })
    }
    this.#count(network, 1)
    const window = this.#windowEnd
    return () => {
      if (window === this.#windowEnd) this.#count(network, -1)
    }
  }

  /** @throws RATE_LIMITED this code was typed too often */
  open(deviceCode: string, now: number): void {
    this.#forgetOld(now)
    const begun = (this.#begun.get(deviceCode) ?? 0) + 1
    this.#begun.set(deviceCode, begun)
    if (begun > this.#limits.perCode) {
      throw new PosternError('RATE_LIMITED', 'this code was typed too often', {
        hint: 'run the command again and type its new code',
      })
    }
  }

  #count(network: string, by: number): void {
    this.#inTotal += by
    const tries = (this.#tries.get(network) ?? 0) + by
    if (tries > 0) this.#tries.set(network, tries)
    else this.#tries.delete(network)
  }

  #forgetOld(now: number): void {
    if (now < this.#windowEnd) return
    this.#windowEnd = now + this.#limits.windowMs
    this.#tries.clear()
    this.#begun.clear()
    this.#inTotal = 0
  }
}
