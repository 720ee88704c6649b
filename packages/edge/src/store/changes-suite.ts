import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseEmailAddress } from '@postern/shared/email'
import { EMPTY_POLICY } from '@postern/shared/policy'
import { parseServiceLabel } from '@postern/shared/service-label'
import {
  insertCertificate,
  listUnrevokedSerials,
  revokeCertificate,
  revokeConnectorLineage,
  revokeIdentityCertificates,
  revokeServiceCertificates,
} from './certificates.ts'
import { type Change, parseMessage, tellEdges } from './changes.ts'
import { upsertIdentity } from './identities.ts'
import { inTransaction } from './in-transaction.ts'
import { lockAddress } from './locks.ts'
import { NOW, type StoreFactory } from './login-suite.ts'
import type { Store } from './open.ts'
import { DEFAULTS, replacePolicy } from './policies.ts'
import { createService, deleteService, updateService } from './services.ts'
import { createSession, endSession, listUnendedSessions } from './sessions.ts'

const NOBODY = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
const END = { reason: 'revoked', now: NOW }
const ANN = parseEmailAddress('ann@mycorp.com')

/** Somebody with a service of theirs. */
async function somebody(db: Store['db']): Promise<{ identityId: string; serviceId: string }> {
  const account = { issuer: 'i', subject: 's', email: ANN, groups: [] }
  const { id: identityId } = await upsertIdentity(db, account, NOW)
  const label = parseServiceLabel('calm-sea-1')
  const wanted = { label, name: 'db', type: 'tls' as const, allow: NOBODY, ownerId: identityId }
  const { id: serviceId } = await createService(db, wanted, NOW)
  return { identityId, serviceId }
}

function signIn(db: Store['db'], identityId: string, grantId: string, expiresAt: number) {
  const login = { identityId, grantId, kind: 'browser' as const, clientAddress: '::1', expiresAt }
  return createSession(db, login, NOW - 10)
}

/** Makes every change once. @returns what has to be told of it, in this order */
async function changeEverything({ db }: Store): Promise<Change[]> {
  const { identityId, serviceId } = await somebody(db)
  const { id: sessionId } = await signIn(db, identityId, 'g', NOW + 1)
  await updateService(db, serviceId, { name: 'other' }, NOW)
  const document = { policy: EMPTY_POLICY, revision: 0, by: identityId }
  await replacePolicy(db, serviceId, document, NOW)
  await replacePolicy(db, DEFAULTS, document, NOW)
  const lock = { email: ANN, until: undefined, reason: 'r', lockedAt: NOW, lockedBy: identityId }
  await lockAddress(db, lock)
  await endSession(db, sessionId, END)
  await revokeCertificate(db, '0a', END)
  await revokeIdentityCertificates(db, identityId, END)
  await revokeServiceCertificates(db, serviceId, END)
  await revokeConnectorLineage(db, 'con_1', END)
  await revokeConnectorLineage(db, 'con_2', { ...END, reason: 'superseded' })
  await deleteService(db, serviceId, NOW)
  return [
    { kind: 'identity', identityId },
    { kind: 'service', serviceId },
    { kind: 'service', serviceId },
    { kind: 'policies' },
    { kind: 'person_locked', identityId },
    { kind: 'session_ended', sessionId },
    { kind: 'certificate_revoked', serial: '0a' },
    { kind: 'person_revoked', identityId },
    { kind: 'service_revoked', serviceId },
    { kind: 'connector_revoked', connectorId: 'con_1', isSuperseded: false },
    { kind: 'connector_revoked', connectorId: 'con_2', isSuperseded: true },
    { kind: 'service_deleted', serviceId, label: 'calm-sea-1' },
  ]
}

/** What edges on one store tell each other; nothing where a store has one edge only. */
export function describeChanges(name: string, openEmpty: StoreFactory): void {
  describe(`${name}: changes`, () => {
    it('tells each change once, in the order of the commits, and none that is taken back', async () => {
      await using store = await openEmpty()
      const heard: unknown[] = []
      const { promise, resolve } = Promise.withResolvers<void>()
      const listening = await store.changes?.listen({
        onEnd: () => {},
        onPayload(payload) {
          const { from, message } = parseMessage(payload)!
          assert.equal(from, store.changes!.edge)
          if (message.kind === 'left') resolve()
          else heard.push(message)
        },
      })
      const rejected = inTransaction(store.db, async (trx) => {
        await tellEdges(trx, { kind: 'policies' })
        throw new Error('taken back')
      })
      await assert.rejects(rejected, /taken back/)
      const expected = await changeEverything(store)
      await listening?.say({ kind: 'left' })
      if (listening) await promise
      assert.deepEqual(heard, listening ? expected : [])
      assert.equal(listening === undefined, name === 'sqlite')
      listening?.close()
    })

    it('marks what a revocation takes back also where it has expired, and counts what was good', async () => {
      await using store = await openEmpty()
      const { db } = store
      const { identityId, serviceId } = await somebody(db)
      const { id: sessionId } = await signIn(db, identityId, 'g', NOW + 1)
      const insert = (serial: string, notAfter: number) =>
        insertCertificate(db, {
          ...{ serial, kind: 'client', keyHash: `${serial}${serial}`, identityId, sessionId, serviceId },
          ...{ connectorId: undefined, machine: undefined, notAfter },
          ...{ notBefore: NOW - 10, issuedAt: NOW - 10 },
        })
      for (const [prefix, revoke] of [
        ['0', () => revokeIdentityCertificates(db, identityId, END)],
        ['1', () => revokeServiceCertificates(db, serviceId, END)],
      ] as const) {
        const [old, good] = [`${prefix}a`, `${prefix}b`]
        await insert(old, NOW - 1)
        await insert(good, NOW + 1_000)
        const serials = [old, good, 'ff']
        assert.deepEqual(await listUnrevokedSerials(db, serials), new Set([old, good]))
        assert.equal(await revoke(), 1)
        assert.deepEqual(await listUnrevokedSerials(db, serials), new Set())
      }
    })

    it('finds sessions that nobody has ended, also those that are over by age', async () => {
      await using store = await openEmpty()
      const { identityId } = await somebody(store.db)
      const aged = await signIn(store.db, identityId, 'a', NOW - 1)
      const live = await signIn(store.db, identityId, 'b', NOW + 1)
      const ended = await signIn(store.db, identityId, 'c', NOW + 1)
      await endSession(store.db, ended.id, END)
      const found = await listUnendedSessions(store.db, [aged.id, live.id, ended.id, 'unknown'])
      assert.deepEqual(found, new Set([aged.id, live.id]))
    })
  })
}
