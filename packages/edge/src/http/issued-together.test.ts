import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { SSH_HOST_JWS_TYPE } from '@postern/shared/api/ssh'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { CompactSign, exportJWK } from 'jose'
import { sql } from 'kysely'
import {
  type ApiAnswer,
  type Credential,
  type EdgeStage,
  MYCORP,
  newCsr,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import type { ServiceRecord } from '../store/services.ts'

/** A certificate is in the store and on record, or neither, and then nobody gets it. */

let stage: EdgeStage
let owner: Person
let service: ServiceRecord
let connector: Credential & { connectorId: string }

before(async () => {
  stage = await startEdgeStage()
  owner = await stage.person('op@mycorp.com')
  service = await stage.service(owner, MYCORP)
  connector = await stage.connectorCertificate(owner, service)
})
after(() => stage[Symbol.asyncDispose]())

async function signHostKeys(): Promise<string> {
  const claims = {
    ...{ aud: stage.edge.origin, iat: Math.floor(stage.now() / 1_000), jti: randomUUID() },
    serial: connector.serial,
    hostKeys: [formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))],
  }
  const jwk = await exportJWK(createPublicKey(connector.privateKey))
  return new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({ alg: 'ES256', typ: SSH_HOST_JWS_TYPE, jwk })
    .sign(connector.privateKey)
}

interface Kind {
  table: 'certificates' | 'ssh_certificates'
  ask: () => Promise<ApiAnswer>
}

const KINDS: Readonly<Record<string, Kind>> = {
  client: {
    table: 'certificates',
    ask: () =>
      stage.api('POST', '/v1/certificates/client', {
        as: owner,
        body: { host: service.label, csr: newCsr() },
      }),
  },
  connector: {
    table: 'certificates',
    ask: () =>
      stage.api('POST', '/v1/connectors', {
        as: owner,
        body: { serviceId: service.id, csr: newCsr(), machine: 'test' },
      }),
  },
  workload: {
    table: 'certificates',
    ask: () =>
      stage.api('POST', '/v1/certificates/workload', {
        as: owner,
        body: { host: service.label, name: 'carbon-relay-3', csr: newCsr() },
      }),
  },
  'ssh-host': {
    table: 'ssh_certificates',
    ask: async () =>
      stage.api('POST', '/v1/connectors/ssh-host-certificates', { body: { jws: await signHostKeys() } }),
  },
}

/** While `work` runs, this table takes no row of this kind. */
async function closing<T>(table: string, condition: string, work: () => Promise<T>): Promise<T> {
  const { db } = stage.store
  await sql
    .raw(
      `create trigger closed before insert on ${table} when ${condition} begin select raise(abort, 'closed'); end`,
    )
    .execute(db)
  try {
    return await work()
  } finally {
    await sql`drop trigger closed`.execute(db)
  }
}

async function count({ table }: Kind): Promise<{ rows: number; records: number }> {
  const countAll = async (from: string) => {
    const { rows } = await sql.raw<{ n: number }>(`select count(*) as n from ${from}`).execute(stage.store.db)
    return rows[0]!.n
  }
  return {
    rows: await countAll(table),
    records: await countAll("audit_events where type = 'certificate.issued'"),
  }
}

describe('a certificate that cannot be written down', () => {
  for (const [name, kind] of Object.entries(KINDS)) {
    it(`of the kind ${name} leaves neither row nor record, and nobody gets it`, async () => {
      const earlier = await count(kind)
      for (const [table, condition] of [
        [kind.table, 'true'],
        ['audit_events', "new.type = 'certificate.issued'"],
      ] as const) {
        const { status, json, text } = await closing(table, condition, kind.ask)
        assert.deepEqual([status, json.error?.code], [503, 'RECORD_FAILED'], `${table}: ${text}`)
        assert.doesNotMatch(text, /BEGIN CERTIFICATE|-cert-v01@openssh/)
        assert.deepEqual(await count(kind), earlier, `without ${table}`)
      }
      const { status, text } = await kind.ask()
      assert.equal(status, 201, text)
      assert.deepEqual(await count(kind), { rows: earlier.rows + 1, records: earlier.records + 1 })
    })
  }
})
