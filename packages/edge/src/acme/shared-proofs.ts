import type { Logger } from '@postern/shared/logger'
import type { Kysely } from 'kysely'
import { findProof, putProof, removeProof } from '../store/acme-proofs.ts'
import type { Database } from '../store/schema.ts'
import { seal, unseal } from '../store/sealed.ts'
import type { ChallengeSolver, Proof } from './challenges.ts'

/** Proofs where all edges of one store find them: behind a balancer the CA looks at whichever edge it meets. A proof is no
 *  secret, but whoever could write one would have the edges vouch for an account of their own, and get a certificate for
 *  the edge's name. So it is sealed under a secret that the edges have and the database does not; what does not open is
 *  not shown. */

/** Longer than an order may take. */
const LIFETIME_MS = 20 * 60_000
/** `TOKEN.THUMBPRINT` (RFC 8555 §8.1). */
const KEY_AUTHORIZATION = /^[A-Za-z0-9_-]{1,256}\.[A-Za-z0-9_-]{43}$/
const TOKEN = /^[A-Za-z0-9_-]{1,256}$/

export interface SharedProofsParts {
  db: Kysely<Database>
  /** Every edge of the store has it. */
  secret: string
  /** Then nothing is looked for: whoever waits for a store that is gone waits for long. */
  isStoreLost: () => boolean
  clock: () => number
  log: Logger
}

export class SharedProofs {
  readonly #parts: SharedProofsParts
  #refused: string | undefined

  constructor(parts: SharedProofsParts) {
    this.#parts = parts
  }

  /** Until it is disposed. @throws whatever the store throws */
  async publish({ name, token, keyAuthorization }: Proof): Promise<AsyncDisposable> {
    const { db, secret, clock, log } = this.#parts
    const sealed = seal(keyAuthorization, secret, contextOf({ name, token }))
    const row = { name, token, sealed, expiresAt: clock() + LIFETIME_MS }
    await putProof(db, row)
    return {
      async [Symbol.asyncDispose]() {
        // what stays behind is forgotten soon
        await removeProof(db, row).catch((error: unknown) => log.debug('acme.proof_not_removed', { error }))
      },
    }
  }

  /** Never rejects: what cannot be found is not shown. */
  async find(wanted: { name: string } | { token: string }): Promise<Proof | undefined> {
    const { db, isStoreLost, clock, log } = this.#parts
    if (isStoreLost() || ('token' in wanted && !TOKEN.test(wanted.token))) return undefined
    try {
      const found = await findProof(db, wanted, clock())
      return found && this.#open(found)
    } catch (error) {
      log.debug('acme.proof_not_read', { error })
      return undefined
    }
  }

  #open({ name, token, sealed }: { name: string; token: string; sealed: string }): Proof | undefined {
    try {
      const keyAuthorization = unseal(sealed, this.#parts.secret, contextOf({ name, token }))
      if (!KEY_AUTHORIZATION.test(keyAuthorization)) throw new Error('it is no key authorization')
      return { name, token, keyAuthorization }
    } catch (error) {
      // an edge with other login keys, or somebody who writes to the database; told once for each
      if (this.#refused !== sealed) this.#parts.log.warn('acme.proof_foreign', { name, error })
      this.#refused = sealed
      return undefined
    }
  }
}

function contextOf({ name, token }: { name: string; token: string }): string {
  return `acme proof ${name} ${token}`
}

/** The same solver, whose proofs the other edges show too. */
export function sharing(solver: ChallengeSolver, shared: SharedProofs): ChallengeSolver {
  return {
    type: solver.type,
    async present(proof, signal) {
      await using proofs = new AsyncDisposableStack()
      proofs.use(await solver.present(proof, signal))
      proofs.use(await shared.publish(proof))
      return proofs.move()
    },
    [Symbol.asyncDispose]: () => solver[Symbol.asyncDispose](),
  }
}
