import assert from 'node:assert/strict'
import { randomUUID, X509Certificate } from 'node:crypto'
import { after, before, beforeEach, describe, it } from 'node:test'
import { RENEW_JWS_TYPE } from '@postern/shared/api/certificates'
import { SSH_HOST_JWS_TYPE, SSH_HOST_KEYS_JWS_TYPE } from '@postern/shared/api/ssh'
import { CompactSign, exportJWK } from 'jose'
import {
  type Credential,
  type EdgeStage,
  MYCORP,
  NOBODY,
  newCsr,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { DEFAULTS, findPolicy } from '../store/policies.ts'
import type { ServiceRecord } from '../store/services.ts'
import { createApi } from './api.ts'
import type { ApiParts } from './parts.ts'

/** Everybody at every endpoint. The routes are read from the router: one without a row here fails. */

const ADDRESSES = {
  /** Signed in, nothing else. */
  outsider: 'guest@elsewhere.org',
  /** Admitted by the service. */
  user: 'dev@mycorp.com',
  /** Operator, who owns another service. */
  other: 'other@contractor.com',
  /** Operator, who owns the service. */
  owner: 'op@mycorp.com',
  auditor: 'auditor@audit.org',
  admin: 'admin@admin.org',
} as const
type Signed = keyof typeof ADDRESSES
/** A connector has no session, but the key of its certificate, or an enroll token. */
type Who = 'nobody' | 'connector' | Signed
type Outcome = number | string
type Outcomes = Record<Who, Outcome>

/** One role each, so that nothing is allowed for the sake of another. */
const only = (...emailAddresses: string[]) => ({ ...NOBODY, emailAddresses })
const CONFIG = {
  operators: only(ADDRESSES.owner, ADDRESSES.other),
  auditors: only(ADDRESSES.auditor),
  admins: only(ADDRESSES.admin),
}

interface Scene {
  who: Who
  people: Record<Signed, Person>
  service: ServiceRecord
}

interface Row {
  method: string
  /** As the router has it. */
  route: string
  outcomes: Outcomes
  /** Whoever asks, or the user, has no session afterwards. */
  endsSession?: true
  /** What tells it from others of the same route. */
  about?: string
  /** The address behind `route`, where that has a parameter or a query. */
  target?: (scene: Scene) => string | Promise<string>
  body?: (scene: Scene) => object | Promise<object>
}

let stage: EdgeStage
before(async () => {
  stage = await startEdgeStage({ config: CONFIG })
})
after(() => stage[Symbol.asyncDispose]())

const ref = ({ service }: Scene) => service.label

/** A flow of the user through the service. */
async function flowOf({ people, service }: Scene): Promise<string> {
  const connector = await stage.connectorCertificate(people.owner, service)
  const { data } = await stage.attach(connector, { warm: 1 })
  const client = await stage.openFlow(service, await stage.clientCertificate(people.user, service))
  const flowId = String((await data[0]!.control()).body.flowId)
  data[0]!.end.send('ok', { flowId })
  await client.control()
  return flowId
}

async function sign(as: Credential, typ: string, claims: object): Promise<string> {
  const jwk = await exportJWK(new X509Certificate(as.certificate).publicKey)
  const said = {
    ...{ aud: stage.edge.origin, iat: Math.floor(stage.now() / 1_000), jti: randomUUID() },
    ...{ serial: as.serial, ...claims },
  }
  return new CompactSign(Buffer.from(JSON.stringify(said)))
    .setProtectedHeader({ alg: 'ES256', typ, jwk })
    .sign(as.privateKey)
}

/** Signed by a connector; of everybody else by the key of a client certificate, which is as good a key. */
const signed =
  (typ: string, claims: () => object) =>
  async ({ who, people, service }: Scene) => {
    const as =
      who === 'connector'
        ? await stage.connectorCertificate(people.owner, service)
        : await stage.clientCertificate(people.user, service)
    return { jws: await sign(as, typ, claims()) }
  }

async function enrollToken({ people, service }: Scene): Promise<string> {
  const path = `/v1/services/${service.label}/enroll-tokens`
  return (await stage.api('POST', path, { as: people.owner, body: {} })).json.token
}

const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g'
const hostKeys = () => ({ hostKeys: [SSH_KEY] })
const victim = async () => (await stage.person(`${randomUUID()}@mycorp.com`)).identity.email

/** Whoever is not named hears `refused`, and without a session that one is needed. */
function may(refused: Outcome, allowed: Partial<Outcomes>): Outcomes {
  const signedIn = Object.fromEntries(Object.keys(ADDRESSES).map((who) => [who, refused]))
  const outcomes = { nobody: 'SIGN_IN_REQUIRED', connector: 'SIGN_IN_REQUIRED', ...signedIn, ...allowed }
  return outcomes as Outcomes
}
const everybody = (outcome: Outcome): Outcomes => may(outcome, { nobody: outcome, connector: outcome })
const signedIn = (outcome: Outcome): Outcomes => may(outcome, {})
const readers = (outcome: Outcome = 200) =>
  may('SERVICE_UNKNOWN', { owner: outcome, auditor: outcome, admin: outcome })
const keepers = (refused: Outcome, outcome: Outcome = 200) => may(refused, { owner: outcome, admin: outcome })
const auditors = may('AUDITOR_REQUIRED', { auditor: 200, admin: 200 })
const admins = may('ADMIN_REQUIRED', { admin: 200 })
const connectors = (refused: string) => ({ ...everybody(refused), connector: 201 })
/** The defaults admit nobody by a role: these two are in the list of the service. */
const admitted = (outcome: Outcome) => may('ACCESS_DENIED', { user: outcome, owner: outcome })

const SERVICE = '/v1/services/:ref'
const REVOKE = { method: 'POST', route: '/v1/revocations' }

const ROWS: Row[] = [
  { method: 'GET', route: '/v1/edge', outcomes: everybody(200) },
  { method: 'GET', route: '/healthz', outcomes: everybody(200) },
  { method: 'GET', route: '/readyz', outcomes: everybody(200) },
  { method: 'GET', route: '/v1/ssh/krl', outcomes: everybody(200) },
  { method: 'GET', route: '/v1/ssh/cas', outcomes: everybody(200) },
  {
    ...{ method: 'GET', route: '/v1/crl/:file', outcomes: everybody(200) },
    target: () => '/v1/crl/client.crl',
  },
  { method: 'GET', route: '/v1/flow-identity-keys', outcomes: everybody(200) },
  { method: 'GET', route: '/v1/session', outcomes: signedIn(200) },
  { method: 'DELETE', route: '/v1/session', endsSession: true, outcomes: signedIn(204) },
  {
    ...{ method: 'POST', route: '/v1/certificates/client', outcomes: admitted(201) },
    body: (scene) => ({ host: ref(scene), csr: newCsr() }),
  },
  {
    ...{ method: 'POST', route: '/v1/certificates/ssh', outcomes: admitted(201) },
    body: (scene) => ({ host: ref(scene), publicKey: SSH_KEY }),
  },
  {
    ...{ method: 'POST', route: '/v1/certificates/workload' },
    body: (scene) => ({ host: ref(scene), name: 'carbon-relay-3', csr: newCsr() }),
    outcomes: may('OPERATOR_REQUIRED', { owner: 201, other: 'SERVICE_UNKNOWN', admin: 201 }),
  },
  { method: 'GET', route: '/v1/certificates', outcomes: signedIn(200) },
  {
    ...{ method: 'GET', route: '/v1/certificates/:serial' },
    target: async ({ people, service }) =>
      `/v1/certificates/${(await stage.workloadCertificate(people.owner, service)).serial}`,
    outcomes: may('CERTIFICATE_UNKNOWN', { owner: 200, auditor: 200, admin: 200 }),
  },
  { method: 'GET', route: '/v1/services', outcomes: signedIn(200) },
  {
    ...{ method: 'POST', route: '/v1/services' },
    body: () => ({ name: randomUUID(), type: 'tls', allow: MYCORP }),
    outcomes: may('OPERATOR_REQUIRED', { owner: 201, other: 201 }),
  },
  { method: 'GET', route: SERVICE, outcomes: readers() },
  {
    ...{ method: 'PATCH', route: SERVICE, outcomes: keepers('SERVICE_UNKNOWN') },
    body: () => ({ name: randomUUID() }),
  },
  { method: 'DELETE', route: SERVICE, outcomes: keepers('SERVICE_UNKNOWN', 204) },
  {
    ...{ method: 'POST', route: `${SERVICE}/enroll-tokens`, outcomes: keepers('SERVICE_UNKNOWN', 201) },
    body: () => ({}),
  },
  { method: 'DELETE', route: `${SERVICE}/enroll-tokens`, outcomes: keepers('SERVICE_UNKNOWN') },
  { method: 'GET', route: `${SERVICE}/policy`, outcomes: readers() },
  {
    ...{ method: 'PUT', route: `${SERVICE}/policy`, outcomes: keepers('SERVICE_UNKNOWN') },
    body: () => ({ policy: {}, revision: 0 }),
  },
  { method: 'GET', route: `${SERVICE}/policy/history`, outcomes: readers() },
  {
    ...{ method: 'GET', route: `${SERVICE}/ssh-host-keys` },
    outcomes: may('ACCESS_DENIED', { user: 200, owner: 200, auditor: 200, admin: 200 }),
  },
  {
    ...{ method: 'POST', route: `${SERVICE}/ssh-host-keys/accept` },
    outcomes: keepers('SERVICE_UNKNOWN'),
  },
  {
    ...{ method: 'POST', route: '/v1/connectors' },
    body: ({ service }) => ({ serviceId: service.id, csr: newCsr(), machine: 'test' }),
    outcomes: may('OPERATOR_REQUIRED', { owner: 201, other: 'SERVICE_UNKNOWN' }),
  },
  {
    ...{ method: 'POST', route: '/v1/connectors/renew', outcomes: connectors('CERTIFICATE_REFUSED') },
    body: signed(RENEW_JWS_TYPE, () => ({ csr: newCsr() })),
  },
  {
    ...{ method: 'POST', route: '/v1/connectors/enroll', outcomes: connectors('ENROLL_TOKEN_INVALID') },
    body: async (scene) => ({
      token: scene.who === 'connector' ? await enrollToken(scene) : `postern_enroll_${'x'.repeat(43)}`,
      ...{ csr: newCsr(), machine: 'test', name: scene.service.name },
    }),
  },
  {
    ...{ method: 'POST', route: '/v1/connectors/ssh-host-certificates' },
    outcomes: connectors('CERTIFICATE_REFUSED'),
    body: signed(SSH_HOST_JWS_TYPE, hostKeys),
  },
  {
    ...{ method: 'POST', route: '/v1/connectors/ssh-host-keys' },
    outcomes: { ...connectors('CERTIFICATE_REFUSED'), connector: 200 },
    body: signed(SSH_HOST_KEYS_JWS_TYPE, hostKeys),
  },
  { method: 'GET', route: '/v1/audit', outcomes: auditors },
  { method: 'GET', route: '/v1/audit/export', outcomes: auditors },
  { method: 'GET', route: '/v1/policy', outcomes: auditors },
  { method: 'GET', route: '/v1/policy/history', outcomes: auditors },
  {
    ...{ method: 'PUT', route: '/v1/policy', outcomes: admins },
    body: async () => ({ policy: {}, revision: (await findPolicy(stage.store.db, DEFAULTS)).revision }),
  },
  {
    ...{ method: 'POST', route: '/v1/policy/test', outcomes: readers() },
    body: (scene) => ({ identity: ADDRESSES.user, service: ref(scene) }),
  },
  {
    ...{ method: 'POST', route: '/v1/policy/diff', about: 'of a service', outcomes: readers() },
    body: (scene) => ({ service: ref(scene), policy: {} }),
  },
  {
    ...{ method: 'POST', route: '/v1/policy/diff', about: 'of the defaults', outcomes: auditors },
    body: () => ({ policy: {} }),
  },
  { method: 'GET', route: '/v1/flows', outcomes: signedIn(200) },
  {
    ...{ method: 'GET', route: '/v1/flows/:id' },
    target: async (scene) => `/v1/flows/${await flowOf(scene)}`,
    outcomes: may('FLOW_UNKNOWN', { user: 200, owner: 200, auditor: 200, admin: 200 }),
  },
  {
    ...{ method: 'GET', route: '/v1/flows/:id/explanation' },
    target: async (scene) => `/v1/flows/${await flowOf(scene)}/explanation`,
    outcomes: may('FLOW_UNKNOWN', { user: 200, owner: 200, auditor: 200, admin: 200 }),
  },
  { method: 'GET', route: '/v1/sessions', about: 'of their own', outcomes: signedIn(200) },
  {
    ...{ method: 'GET', route: '/v1/sessions', about: 'of the user' },
    target: () => `/v1/sessions?email=${ADDRESSES.user}`,
    outcomes: { ...auditors, user: 200 },
  },
  { method: 'GET', route: '/v1/locks', outcomes: auditors },
  {
    ...{ method: 'POST', route: '/v1/locks', outcomes: admins },
    body: async () => ({ email: await victim(), reason: 'left' }),
  },
  {
    ...{ method: 'DELETE', route: '/v1/locks/:email', outcomes: admins },
    async target({ people }) {
      const email = await victim()
      await stage.api('POST', '/v1/locks', { as: people.admin, body: { email, reason: 'left' } })
      return `/v1/locks/${email}`
    },
  },
  { ...REVOKE, about: 'a person', body: async () => ({ email: await victim() }), outcomes: admins },
  {
    ...{ ...REVOKE, about: 'a session of the user', endsSession: true as const },
    body: ({ people }) => ({ sessionId: people.user.session.id }),
    outcomes: may('SESSION_UNKNOWN', { user: 200, admin: 200 }),
  },
  {
    ...{ ...REVOKE, about: 'a certificate', outcomes: keepers('CERTIFICATE_UNKNOWN') },
    body: async ({ people, service }) => ({
      certificateSerial: (await stage.clientCertificate(people.user, service)).serial,
    }),
  },
  {
    ...{ ...REVOKE, about: 'a certificate of a program', outcomes: keepers('CERTIFICATE_UNKNOWN') },
    body: async ({ people, service }) => ({
      certificateSerial: (await stage.workloadCertificate(people.owner, service)).serial,
    }),
  },
  {
    ...{ ...REVOKE, about: 'a connector', outcomes: keepers('CONNECTOR_UNKNOWN') },
    body: async ({ people, service }) => ({
      connectorId: (await stage.connectorCertificate(people.owner, service)).connectorId,
    }),
  },
  {
    ...{ ...REVOKE, about: 'a service', outcomes: keepers('SERVICE_UNKNOWN') },
    body: (scene) => ({ service: ref(scene) }),
  },
  {
    ...{ ...REVOKE, about: 'a flow of the user' },
    body: async (scene) => ({ flowId: await flowOf(scene) }),
    outcomes: may('FLOW_UNKNOWN', { user: 200, owner: 200, admin: 200 }),
  },
]

const nameOf = ({ method, route, about }: Row) => `${method} ${route}${about ? `, ${about}` : ''}`
const isAllowed = (outcome: Outcome) => typeof outcome === 'number'

describe('each role at each endpoint', () => {
  let people: Record<Signed, Person>
  let service: ServiceRecord

  const signInAll = async () => {
    const signedIn = Object.entries(ADDRESSES).map(async ([who, email]) => [who, await stage.person(email)])
    people = Object.fromEntries(await Promise.all(signedIn))
  }
  before(signInAll)
  beforeEach(async () => {
    service = await stage.service(people.owner)
  })

  for (const row of ROWS) {
    for (const [who, outcome] of Object.entries(row.outcomes) as [Who, Outcome][]) {
      it(`${nameOf(row)}, as ${who}: ${outcome}`, async () => {
        const scene = { who, people, service }
        const target = (await row.target?.(scene)) ?? row.route.replace(':ref', service.label)
        const body = await row.body?.(scene)
        stage.gates.events.splice(0)
        const answer = await stage.api(row.method, target, {
          ...(who === 'nobody' || who === 'connector' ? {} : { as: people[who] }),
          ...(body ? { body } : {}),
        })
        if (row.endsSession) await signInAll()
        assert.equal(answer.code ?? answer.status, outcome, answer.text)
        assert.equal(answer.status < 400, isAllowed(outcome))
        if (isAllowed(outcome)) return
        const done = stage.gates.events.filter((event) => !/\.refused$/.test(event.type))
        assert.deepEqual(done, [], 'who is refused changes nothing')
      })
    }
  }
})

describe('the table', () => {
  it('has every route of the router, and no other', () => {
    const anything: unknown = new Proxy(() => {}, { get: () => anything, apply: () => anything })
    const routes = createApi(anything as ApiParts)
      .routes.filter(({ method }) => method !== 'ALL') // what stands before all of them
      .map(({ method, path }) => `${method} ${path}`)
    const rows = ROWS.map(({ method, route }) => `${method} ${route}`)
    assert.deepEqual([...new Set(rows)].sort(), [...new Set(routes)].sort())
  })

  it('lets an auditor read everything and change nothing', () => {
    const read = ROWS.filter(({ method }) => method === 'GET')
    assert.deepEqual(read.filter(({ outcomes }) => outcomes.auditor !== 200).map(nameOf), [])
    const written = ROWS.filter(({ method, outcomes }) => method !== 'GET' && isAllowed(outcomes.auditor))
    assert.deepEqual(written.map(nameOf), [
      'DELETE /v1/session', // their own
      'POST /v1/policy/test', // questions
      'POST /v1/policy/diff, of a service',
      'POST /v1/policy/diff, of the defaults',
    ])
  })

  it('keeps an operator out of what is of another', () => {
    const touched = ROWS.filter(({ outcomes: { owner, other } }) => isAllowed(other) && isAllowed(owner))
    assert.deepEqual(
      touched.map(nameOf).filter((name) => /:ref|:id|, (a|of the|of a) /.test(name)),
      [],
    )
  })
})
