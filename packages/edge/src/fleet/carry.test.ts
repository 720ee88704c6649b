import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { sql } from 'kysely'
import {
  type Credential,
  type EdgeStage,
  MYCORP,
  NOBODY,
  type Peer,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { makeCa, makeLeaf } from '../../test/foreign-ca.ts'
import { newDatabase } from '../../test/postgres.ts'
import { newId } from '../store/new-id.ts'
import { openStore, type Store } from '../store/open.ts'
import type { ServiceRecord } from '../store/services.ts'

/** What an edge makes of its flows and connectors when changes were made that it was not told of. */

interface Live {
  person: Person
  service: ServiceRecord
  serial: string
  connectorId: string
  client: Peer
  data: Peer
  control: { next(type: string): Promise<Record<string, unknown>> }
}

type Show = (owner: Person, service: ServiceRecord) => Promise<Credential>

describe('an edge that may have missed something', () => {
  let stage: EdgeStage
  let database: string
  /** Another process on the same database, which tells nobody what it does. */
  let other: Store

  before(async () => {
    database = await newDatabase()
    stage = await startEdgeStage({ config: { store: database } })
    other = await openStore(database)
  })
  after(async () => {
    await other?.close()
    await stage?.[Symbol.asyncDispose]()
  })

  /** Somebody with a flow through a service and connector of its own.
   *  @param show in place of a person's certificate */
  async function liveFlow(email: string, show?: Show): Promise<Live> {
    const owner = await stage.person('owner@mycorp.com')
    const service = await stage.service(owner)
    const connector = await stage.connectorCertificate(owner, service)
    const attached = await stage.attach(connector)
    const data = await attached.openData()
    const person = await stage.person(email)
    const credential = await (show?.(owner, service) ?? stage.clientCertificate(person, service))
    const client = await stage.openFlow(service, credential)
    const { body } = await data.control()
    data.end.send('ok', { flowId: body.flowId as string })
    await client.control()
    const { serial } = credential
    const { connectorId } = connector
    return { person, service, serial, connectorId, client, data, control: attached.control }
  }

  async function assertCarries({ client, data }: Live, text: string): Promise<void> {
    const before = data.received.toString()
    client.end.write(Buffer.from(text))
    await data.text(before + text)
  }

  /** Ends the connection on which the edge listens, and waits until it has read everything again. */
  async function missNothingMore(): Promise<void> {
    const heardAgain = stage.log.events('changes.heard_again').length
    await sql`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'postern-edge listens'`.execute(other.db)
    while (stage.log.events('changes.heard_again').length === heardAgain) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  it('ends what the store does not admit any more, each with its code, and nothing else', async () => {
    const { db } = other
    const now = stage.now()
    const [stays, certificate, session, list, lock, deleted, policy] = [
      ...[await liveFlow('stays@mycorp.com'), await liveFlow('certificate@mycorp.com')],
      ...[await liveFlow('session@mycorp.com'), await liveFlow('list@mycorp.com')],
      ...[await liveFlow('lock@mycorp.com'), await liveFlow('deleted@mycorp.com')],
      await liveFlow('policy@mycorp.com'),
    ] as [Live, Live, Live, Live, Live, Live, Live]
    const connector = await liveFlow('connector@mycorp.com')

    await db
      .updateTable('certificates')
      .set({ revoked_at: now })
      .where('serial', '=', certificate.serial)
      .execute()
    const ended = db.updateTable('sessions').set({ ended_at: now })
    await ended.where('id', '=', session.person.session.id).execute()
    const listed = db.updateTable('services').set({ allow: JSON.stringify(NOBODY) })
    await listed.where('id', '=', list.service.id).execute()
    const gone = db.updateTable('services').set({ deleted_at: now })
    await gone.where('id', '=', deleted.service.id).execute()
    const locked = {
      email: 'lock@mycorp.com',
      until: null,
      reason: 'r',
      locked_at: now,
      locked_by: newId('idn'),
    }
    await db
      .insertInto('locks')
      .values({ key: lock.person.identity.id, ...locked })
      .execute()
    const document = { allow: [], deny: [{ emailAddresses: ['policy@mycorp.com'] }], require: {}, limits: {} }
    const written = { revision: 1, changed_at: now, changed_by: newId('idn') }
    await db
      .insertInto('policies')
      .values({ scope: policy.service.id, policy: JSON.stringify(document), ...written })
      .execute()
    await db
      .updateTable('certificates')
      .set({ revoked_at: now, revoked_reason: 'superseded' })
      .where('connector_id', '=', connector.connectorId)
      .execute()
    for (const live of [stays, certificate, session, list, lock, deleted, policy, connector]) {
      await assertCarries(live, 'unheard')
    }

    await missNothingMore()
    for (const [live, code] of [
      [certificate, 'FLOW_REVOKED'],
      [session, 'FLOW_REVOKED'],
      [list, 'FLOW_REVOKED'],
      [lock, 'IDENTITY_LOCKED'],
      [deleted, 'FLOW_REVOKED'],
      [policy, 'FLOW_REVOKED'],
      [connector, 'FLOW_CUT'],
    ] as const) {
      assert.equal((await live.client.cut()).code, code, live.person.identity.email)
    }
    assert.equal((await connector.control.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal((await deleted.control.next('refused')).code, 'CONNECTOR_REFUSED')
    await assertCarries(stays, ' and goes on')
  })

  it('ends programs, too, that the store does not admit any more, and no other', async () => {
    const { db } = other
    const ca = await makeCa('Acme Root')
    const apply = async (owner: Person, { label }: ServiceRecord, policy: object) => {
      const path = `/v1/services/${label}/policy`
      const { status, text } = await stage.api('PUT', path, { as: owner, body: { revision: 0, policy } })
      assert.equal(status, 200, text)
    }
    const program: Show = async (owner, service) => {
      await apply(owner, service, { allow: [{ workloads: ['carbon-relay-3'] }] })
      return stage.workloadCertificate(owner, service)
    }
    const partner: Show = async (owner, service) => {
      const trustedClientCas = [{ name: 'acme', certificate: ca.pem }]
      const fields = [{ type: 'CN', equals: 'sensor-7' }]
      await apply(owner, service, { trustedClientCas, allow: [{ subjects: [{ ca: 'acme', fields }] }] })
      return makeLeaf(ca, [{ CN: [{ utf8String: 'sensor-7' }] }])
    }
    const stays = [await liveFlow('a@mycorp.com', program), await liveFlow('b@mycorp.com', partner)]
    const revoked = await liveFlow('c@mycorp.com', program)
    const untrusted = await liveFlow('d@mycorp.com', partner)
    const unnamed = await liveFlow('e@mycorp.com', program)
    const revoke = db.updateTable('certificates').set({ revoked_at: stage.now() })
    await revoke.where('serial', '=', revoked.serial).execute()
    const empty = { policy: JSON.stringify({ allow: [], deny: [], require: {}, limits: {} }), revision: 2 }
    for (const { service } of [untrusted, unnamed]) {
      await db.updateTable('policies').set(empty).where('scope', '=', service.id).execute()
    }
    await missNothingMore()
    for (const live of [revoked, untrusted, unnamed]) {
      assert.equal((await live.client.cut()).code, 'FLOW_REVOKED')
    }
    for (const live of stays) await assertCarries(live, 'goes on')
  })

  it('lets a flow go on whose certificate has expired and whose login is over by age', async () => {
    const aged = await liveFlow('aged@mycorp.com')
    const past = stage.now() - 1
    const { db } = other
    await db.updateTable('certificates').set({ not_after: past }).where('serial', '=', aged.serial).execute()
    const over = db.updateTable('sessions').set({ expires_at: past })
    await over.where('id', '=', aged.person.session.id).execute()
    await missNothingMore()
    await assertCarries(aged, 'still here')
    assert.deepEqual(aged.service.allow, MYCORP)
  })
})
