import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseEmailAddress } from '@postern/shared/email'
import { parseServiceLabel } from '@postern/shared/service-label'
import { sql } from 'kysely'
import { newDatabase } from '../../test/postgres.ts'
import { readAuditLog } from '../store/audit-events.ts'
import { testChain, verifyAll } from '../store/audit-suite.ts'
import { certificateRow, findCertificate, type NewCertificate } from '../store/certificates.ts'
import { upsertIdentity } from '../store/identities.ts'
import { openStore, type Store } from '../store/open.ts'
import { createService } from '../store/services.ts'
import type { CertificateIssued } from './event.ts'
import { listAuditRecords } from './list.ts'
import { type AuditLog, openAuditLog } from './record.ts'

const NOW = 1_800_000_000_000
const PLACES: Readonly<Record<string, () => Promise<string>>> = {
  sqlite: async () => 'sqlite::memory:',
  postgres: () => newDatabase(),
}
const NOBODY = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }

let identityId: string
let serviceId: string

/** With somebody who has a service. */
async function openAt(location: string): Promise<Store> {
  const store = await openStore(location)
  const account = { issuer: 'i', subject: 's', email: parseEmailAddress('dev@mycorp.com'), groups: [] }
  identityId = (await upsertIdentity(store.db, account, NOW)).id
  const label = parseServiceLabel('calm-river-17')
  const wanted = { label, name: 'db', type: 'tls' as const, allow: NOBODY, ownerId: identityId }
  serviceId = (await createService(store.db, wanted, NOW)).id
  return store
}

const issued = (serial: string): CertificateIssued => ({
  type: 'certificate.issued',
  kind: 'client',
  identityId,
  email: 'dev@mycorp.com',
  clientAddress: '203.0.113.7',
  serviceId,
  label: 'calm-river-17',
  certificateSerial: serial,
  keyHash: '00',
  notBefore: NOW,
  notAfter: NOW + 1,
})
const certificate = (serial: string): NewCertificate => ({
  ...{ serial, kind: 'client', keyHash: '00', identityId, sessionId: undefined },
  ...{ serviceId, connectorId: undefined, machine: undefined },
  ...{ notBefore: NOW, notAfter: NOW + 1, issuedAt: NOW },
})

for (const [name, place] of Object.entries(PLACES)) {
  describe(`${name}: an event and a row`, () => {
    const write = (audit: AuditLog, serial: string) =>
      audit.record(issued(serial), certificateRow(certificate(serial)))
    const recorded = async (store: Store) =>
      (await listAuditRecords(store.db, { type: 'certificate.issued', limit: 10 })).map((record) =>
        record.type === 'certificate.issued' ? record.certificateSerial : undefined,
      )

    it('are both on disk', async () => {
      await using store = await openAt(await place())
      await using audit = openAuditLog(store.db, { chain: testChain('chn_test') })
      await write(audit, '01') // begins the chain
      await Promise.all(['02', '03'].map((serial) => write(audit, serial)))
      assert.deepEqual(await recorded(store), ['01', '02', '03'])
      for (const serial of ['01', '02', '03']) assert.ok(await findCertificate(store.db, serial), serial)
    })

    it('are both missing when the row is turned away, and what came with it is there', async () => {
      await using store = await openAt(await place())
      await using audit = openAuditLog(store.db, { chain: testChain('chn_test') })
      for (const round of [0, 1]) {
        const [taken, plain, other] = [`0${round}`, `1${round}`, `2${round}`]
        await write(audit, taken)
        const results = await Promise.allSettled([
          audit.record(issued(plain)),
          write(audit, taken), // a serial is given once
          write(audit, other),
        ])
        assert.deepEqual(
          results.map(({ status }) => status),
          ['fulfilled', 'rejected', 'fulfilled'],
        )
        assert.equal(results[1].status === 'rejected' && results[1].reason.code, 'RECORD_FAILED')
        assert.ok(await findCertificate(store.db, other))
      }
      assert.deepEqual(await recorded(store), ['00', '10', '20', '01', '11', '21'])
      const log = await readAuditLog(store.db, { after: 0, limit: 100 })
      assert.equal(verifyAll(log).chains.length, 1)
    })

    it('are both missing when the event cannot be written', async () => {
      await using store = await openAt(await place())
      await using audit = openAuditLog(store.db, { chain: testChain('chn_test') })
      await write(audit, '01')
      await sql`alter table audit_events rename to elsewhere`.execute(store.db)
      await assert.rejects(write(audit, '02'), { code: 'RECORD_FAILED' })
      await sql`alter table elsewhere rename to audit_events`.execute(store.db)
      assert.equal(await findCertificate(store.db, '02'), undefined)
      await write(audit, '02')
      assert.deepEqual(await recorded(store), ['01', '02'])
    })
  })
}
