import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Policy } from '@postern/shared/policy'

/** Fills the store of an edge that does not run with more than the API takes in reasonable time. */

const POLICY_RULES = 100

/** A policy that forbids so many strangers: every entry is looked at before anybody is admitted. */
export function writePolicy(dataDir: string, serviceId: string, entries: number): void {
  const perRule = Math.ceil(entries / POLICY_RULES)
  const addresses = Array.from({ length: entries }, (_, entry) => `stranger-${entry}@elsewhere.example`)
  const deny = Array.from({ length: Math.ceil(entries / perRule) }, (_, rule) => ({
    emailAddresses: addresses.slice(rule * perRule, (rule + 1) * perRule),
  }))
  const policy: Policy = { allow: [], deny, require: {}, limits: {} }
  change(dataDir, (database) => {
    database
      .prepare(
        `insert into policies (scope, policy, revision, changed_at, changed_by)
         select ?, ?, 1, ?, id from identities limit 1
         on conflict (scope) do update set policy = excluded.policy, revision = policies.revision + 1`,
      )
      .run(serviceId, JSON.stringify(policy), Date.now())
  })
}

export function forgetPolicy(dataDir: string, serviceId: string): void {
  change(dataDir, (database) => database.prepare('delete from policies where scope = ?').run(serviceId))
}

/** Services that nobody serves.
 *  @param first number of the first of them: every call needs its own */
export function addServices(dataDir: string, count: number, first: number): void {
  change(dataDir, (database) => {
    const { id: owner } = database.prepare('select id from identities limit 1').get() as { id: string }
    const now = Date.now()
    const allow = JSON.stringify({
      emailDomains: ['mycorp.com'],
      emailAddresses: [],
      anyAuthenticated: false,
    })
    const service = database.prepare(
      `insert into services (id, label, name, type, owner_id, allow, revision, created_at, updated_at)
       values (?, ?, ?, 'tls', ?, ?, 1, ?, ?)`,
    )
    const label = database.prepare('insert into labels (label, owner_id, service_id) values (?, ?, ?)')
    for (let number = first; number < first + count; number++) {
      const name = `known-${number}`
      service.run(name, name, name, owner, allow, now, now)
      label.run(name, owner, name)
    }
  })
}

function change(dataDir: string, work: (database: DatabaseSync) => void): void {
  const database = new DatabaseSync(path.join(dataDir, 'edge.sqlite'))
  try {
    database.exec('begin')
    work(database)
    database.exec('commit')
  } finally {
    database.close()
  }
}
