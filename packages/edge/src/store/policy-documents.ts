import type { Policy } from '@postern/shared/policy'
import type { Kysely, Selectable } from 'kysely'
import type { Database, PoliciesTable } from './schema.ts'

/** Of JSON, all that are kept together. */
const MAX_CHARACTERS = 32 * 1024 * 1024

type Row = Selectable<PoliciesTable>
/** A revision is written once: with its time it cannot be that of a database that was restored meanwhile. */
type Revision = Pick<Row, 'scope' | 'revision' | 'changed_at'>

/** Policies as they were parsed, each at the revision it was read at. Whether that one still counts is not known here:
 *  the store is asked each time. Nobody changes what they get. */
export class PolicyDocuments {
  readonly #kept = new Map<string, { row: Row; policy: Policy }>()
  readonly #maxCharacters: number
  #characters = 0

  constructor(maxCharacters = MAX_CHARACTERS) {
    this.#maxCharacters = maxCharacters
  }

  get({ scope, revision, changed_at }: Revision): Policy | undefined {
    const kept = this.#kept.get(scope)
    if (kept?.row.revision !== revision || kept.row.changed_at !== changed_at) return undefined
    this.#kept.delete(scope)
    this.#kept.set(scope, kept) // the one that was asked for last goes last
    return kept.policy
  }

  keep(row: Row): Policy {
    const policy: Policy = JSON.parse(row.policy)
    this.#drop(row.scope)
    this.#kept.set(row.scope, { row, policy })
    this.#characters += row.policy.length
    for (const scope of this.#kept.keys()) {
      if (this.#characters <= this.#maxCharacters) break
      this.#drop(scope)
    }
    return policy
  }

  #drop(scope: string): void {
    const kept = this.#kept.get(scope)
    if (!kept) return
    this.#kept.delete(scope)
    this.#characters -= kept.row.policy.length
  }
}

const documents = new WeakMap<Kysely<Database>, PolicyDocuments>()

/** Those of a database. */
export function documentsOf(db: Kysely<Database>): PolicyDocuments {
  const known = documents.get(db) ?? new PolicyDocuments()
  documents.set(db, known)
  return known
}
