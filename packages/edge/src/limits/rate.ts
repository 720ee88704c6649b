/** How often somebody with a name may do something. Counted in this process: each edge has counts of its own. */
import { PosternError } from '@postern/shared/errors'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'

export interface Rate {
  /** @throws RATE_LIMITED with the seconds to wait, in words and as `details.retryAfterSeconds` */
  spend(identityId: string): Promise<void>
}

/** @param what in the plural, as the person reads it: "certificates" */
export function openRate(what: string, perMinute: number): Rate {
  const limiter = new RateLimiterMemory({ points: perMinute, duration: 60 })
  return {
    async spend(identityId) {
      try {
        await limiter.consume(identityId)
      } catch (refused) {
        if (!(refused instanceof RateLimiterRes)) throw refused
        throw rateLimited(`you asked for more than ${perMinute} ${what} in a minute`, refused.msBeforeNext)
      }
    },
  }
}

/** Tells how long to wait, in words and as `details.retryAfterSeconds`. */
export function rateLimited(message: string, waitMs: number): PosternError {
  const retryAfterSeconds = Math.max(1, Math.ceil(waitMs / 1_000))
  return new PosternError('RATE_LIMITED', message, {
    hint: `wait ${retryAfterSeconds} seconds and try again`,
    details: { retryAfterSeconds },
  })
}
