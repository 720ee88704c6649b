import assert from 'node:assert/strict'
import { randomUUID, X509Certificate } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { RENEW_JWS_TYPE } from '@postern/shared/api/certificates'
import { SSH_HOST_KEYS_JWS_TYPE } from '@postern/shared/api/ssh'
import type { EmailAddress } from '@postern/shared/email'
import { ERRORS, type ErrorCode, isErrorCode, PosternError } from '@postern/shared/errors'
import { ALPN_DATA, ALPN_FLOW } from '@postern/shared/protocol/frames'
import { CompactSign, exportJWK } from 'jose'
import { sql } from 'kysely'
import * as oidc from 'openid-client'
import {
  ATTACH,
  type AttachedPeer,
  type Credential,
  DOMAIN,
  type EdgeStage,
  NOBODY,
  newCsr,
  newKey,
  Peer,
  type Person,
  type StageOptions,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { makeCa, makeCrl, makeLeaf } from '../../test/foreign-ca.ts'
import { Browser, codeOn, createCli, logIn, startStage } from '../../test/login-stage.ts'
import { revokeCertificate, revokeConnectorLineage } from '../store/certificates.ts'
import { lockAddress, unlockAddress } from '../store/locks.ts'
import { deleteService, type ServiceRecord } from '../store/services.ts'
import { endSession } from '../store/sessions.ts'
import { isStrangersRefusal } from './count-strangers.ts'
import type { AuditEvent, AuditEventType } from './event.ts'

/** Walks the table of errors: for every code with which the edge turns somebody away, it is provoked, and leaves one
 *  event with the code that they have heard and, where it is known, with who they are. The log says the same. */

/** Codes that no edge answers. Each is said before anybody is asked, or about the machine it is said on. */
const NEVER_THE_EDGES: Partial<Record<ErrorCode, string>> = {
  USAGE_INVALID: 'the command line says it before it asks anybody',
  CONFIG_INVALID: 'the edge does not start',
  STATE_INVALID: 'the edge does not start, or the state of the command line is damaged',
  EDGE_UNKNOWN: 'the command line knows no edge to ask',
  EDGE_UNREACHABLE: 'nobody was there to refuse anything',
  EDGE_UNTRUSTED: 'the client turns the edge away',
  CONNECTOR_REPLACED: 'what a connector makes of its close code; the edge records connector.lost',
  SSH_FILE_FOREIGN: 'about a file of the person',
  SSH_AGENT_FAILED: 'about the agent of the person',
  SSH_CONFIG_INVALID: 'about the configuration of the person',
  BUSY: 'about a lock on the machine of the command line',
  SSHD_SETUP_FAILED: 'about the machine of the server',
  SERVICE_SETUP_FAILED: "about the person's machine",
  KRL_INVALID: 'the server turns a list away',
  CA_ROTATING: 'postern-edge ca rotate says it',
  CA_KEY_LOCKED: 'the edge does not start',
  EDGE_KEYS_DIFFER: 'the edge does not start, or says it in its log',
  CRL_INVALID: 'postern-edge ca crl says it of a copy',
  CRL_EXPIRED: 'postern-edge ca crl says it of a copy',
  AUDIT_BROKEN: 'said of an export, without an edge',
  CHECK_FAILED: 'the doctor says it',
  ACME_CHALLENGE_FAILED: "about the edge's own certificate",
  ACME_HOOK_FAILED: "about the edge's own certificate",
  ACME_PROTOCOL_INVALID: "about the edge's own certificate",
  ACME_RATE_LIMITED: "about the edge's own certificate",
  ACME_REFUSED: "about the edge's own certificate",
  ACME_UNREACHABLE: "about the edge's own certificate",
  TLS_FILES_INVALID: "about the edge's own certificate",
  FLOW_IDENTITY_INVALID: 'the service turns a header away',
  SERVICES_INVALID: 'about a file of the connector',
  LISTENERS_INVALID: "about a file on the person's machine",
  PROXY_UNREACHABLE: 'about a proxy on the way to the edge',
  PROXY_LOGIN_REQUIRED: 'a proxy on the way to the edge says it',
  PROXY_REFUSED: 'a proxy on the way to the edge says it',
  TRANSPORT_REFUSED: 'about what stands in front of the edge',
  PROXY_INVALID: 'about a proxy on the way to the edge',
  PROXY_UNTRUSTED: 'about a proxy on the way to the edge',
  LISTEN_FAILED: "about a port of the person's machine",
  LOCAL_USER_REFUSED: "about another user of the person's machine",
  LOCAL_USER_UNKNOWN: "about a program of the person's machine",
  INTERRUPTED: 'the person has ended the command',
}
/** Where the edge answers requests; what is beside it is said before it listens. */
const ANSWERING = ['connectors', 'flow', 'http', 'limits', 'login', 'policy', 'revocation', 'services']
/** Names of those codes in there that are not answers: keys that cannot be read, at the start. */
const AT_THE_START: ReadonlySet<string> = new Set(['login/keys.ts STATE_INVALID'])

interface Scene {
  stage: EdgeStage
  /** Operator, who owns `service`. */
  owner: Person
  /** Operator of something else. */
  other: Person
  admin: Person
  /** Admitted by the service. */
  dev: Person
  /** No operator, and not admitted. */
  guest: Person
  service: ServiceRecord
}

/** What the one who was turned away hears. */
interface Told {
  code: ErrorCode | undefined
  flowId?: unknown
}

interface Case {
  /** Where it is refused. */
  at: string
  /** On an edge of its own. */
  on?: StageOptions
  provoke(scene: Scene): Promise<Told>
  type: AuditEventType
  /** Who is named; nobody: it is counted among those of strangers. */
  who?: 'owner' | 'other' | 'admin' | 'dev' | 'guest'
  /** In place of a person: the name of a program. */
  program?: string
  /** Events that the same act leaves besides, for another reason. */
  besides?: AuditEventType
  /** The line of the log; the default is that of the type. */
  line?: string | undefined
}

const LINES: Partial<Record<AuditEventType, string>> = {
  'request.refused': 'api.refused',
  'certificate.refused': 'api.refused',
  'enroll_token.refused': 'api.refused',
  'connector.refused': 'connector.refused',
  'flow.decided': 'flow.refused',
  'flow.refused': 'flow.refused',
  'flow.closed': 'flow.ended',
}

type Api = [method: string, path: (scene: Scene) => string, options?: (scene: Scene) => object]

const of = ({ service }: Scene, rest = '') => `/v1/services/${service.label}${rest}`
const SERVICES = () => '/v1/services'

/** A request of the API, by somebody or by a stranger. */
function asked(
  who: Case['who'],
  [method, target, options = () => ({})]: Api,
  more: Partial<Case> = {},
): Case {
  return {
    at: `${method} ${target({ service: { label: ':ref' } } as Scene)}`,
    provoke: async (scene) => {
      const as = who && { as: scene[who] }
      return heard(await scene.stage.api(method, target(scene), { ...as, ...options(scene) }))
    },
    type: 'request.refused',
    ...(who ? { who } : {}),
    ...more,
  }
}

const heard = ({ code }: { code: string | undefined }): Told => {
  assert.ok(isErrorCode(code), `not refused: ${code}`)
  return { code }
}

async function cut(peer: Peer): Promise<Told> {
  const { code, details } = await peer.cut()
  return { code, flowId: details?.flowId }
}

async function dialFlow({ stage, service }: Scene, credential: Credential): Promise<Told> {
  return cut(await stage.openFlow(service, credential))
}

async function flowOf(scene: Scene, person: Person = scene.dev): Promise<Told> {
  return dialFlow(scene, await scene.stage.clientCertificate(person, scene.service))
}

/** Certificates of the wrong kind are turned away in the handshake, where nothing can be said. */
async function shakeHands(
  { stage }: Scene,
  serverName: string,
  alpn: string,
  credential?: Credential,
): Promise<Told> {
  // a client that is turned away may hear of it only when it reads
  await stage.dial({ serverName, alpn: [alpn], credential }).catch(() => {})
  return { code: undefined }
}

async function attachHeard(
  { stage }: Scene,
  credential: Credential,
  message: unknown = ATTACH,
): Promise<Told> {
  const control = await stage.openControl(credential)
  control.send(message)
  return heard((await control.next('refused')) as { code: string })
}

/** A flow that carries bytes, with both ends. */
async function relayed(scene: Scene, connector?: AttachedPeer): Promise<{ client: Peer; data: Peer }> {
  const { stage, owner, service, dev } = scene
  const attached =
    connector ?? (await stage.attach(await stage.connectorCertificate(owner, service), { warm: 1 }))
  const data = attached.data[0]!
  const client = await stage.openFlow(service, await stage.clientCertificate(dev, service))
  const { body } = await data.control()
  data.end.send('ok', { flowId: body.flowId as string })
  await client.control()
  return { client, data }
}

async function callOf(
  { stage }: Scene,
  as: Credential,
  typ: string,
  claims: Record<string, unknown>,
): Promise<string> {
  const jwk = await exportJWK(new X509Certificate(as.certificate).publicKey)
  const said = {
    aud: stage.edge.origin,
    iat: Math.floor(stage.now() / 1_000),
    jti: randomUUID(),
    serial: as.serial,
    ...claims,
  }
  return new CompactSign(Buffer.from(JSON.stringify(said)))
    .setProtectedHeader({ alg: 'ES256', typ, jwk })
    .sign(as.privateKey)
}

async function renew(scene: Scene, as: Credential, claims: Record<string, unknown> = {}): Promise<Told> {
  const jws = await callOf(scene, as, RENEW_JWS_TYPE, { csr: newCsr(), ...claims })
  return heard(await scene.stage.api('POST', '/v1/connectors/renew', { body: { jws } }))
}

const PROGRAM = 'workload:carbon-relay-3'

const connectorOf = ({ stage, owner, service }: Scene) => stage.connectorCertificate(owner, service)
const certificateBody = ({ service }: Scene) => ({ body: { host: service.label, csr: newCsr() } })
const sshBody = ({ service }: Scene, publicKey = SSH_KEY) => ({ body: { host: service.label, publicKey } })
const SSH_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g'

/** Writes a policy of the service, as its owner. */
async function require(scene: Scene, policy: object): Promise<void> {
  const { status, text } = await scene.stage.api('PUT', of(scene, '/policy'), {
    as: scene.owner,
    body: { revision: 0, policy },
  })
  assert.equal(status, 200, text)
}

/** A person whom only this condition keeps out: at the certificate, and at the flow. */
function conditional(require_: (scene: Scene) => object, aheadMs = 0): Case[] {
  const prepare = async (scene: Scene) => {
    await require(scene, { require: require_(scene) })
    scene.stage.clock.aheadMs = aheadMs
  }
  return [
    {
      at: 'a certificate',
      async provoke(scene) {
        await prepare(scene)
        const { stage, dev } = scene
        return heard(
          await stage.api('POST', '/v1/certificates/client', { as: dev, ...certificateBody(scene) }),
        )
      },
      type: 'certificate.refused',
      who: 'dev',
    },
    {
      at: 'a flow',
      async provoke(scene) {
        await prepare(scene)
        return flowOf(scene)
      },
      type: 'flow.decided',
      who: 'dev',
    },
  ]
}

const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const
/** Not today, and neither yesterday nor tomorrow. */
const anotherDay = (now: number) => DAYS[(new Date(now).getUTCDay() + 3) % 7]!

async function locked(scene: Scene): Promise<void> {
  const { stage, admin, dev } = scene
  const body = { email: dev.identity.email, reason: 'left' }
  assert.equal((await stage.api('POST', '/v1/locks', { as: admin, body })).status, 200)
}

async function loseStore({ stage }: Scene): Promise<() => Promise<unknown>> {
  const { db } = stage.store
  await sql`alter table replay_guards rename to away`.execute(db)
  await stage.log.until('store.lost')
  return () => sql`alter table away rename to replay_guards`.execute(db)
}

const CASES: Partial<Record<ErrorCode, Case[]>> = {
  REQUEST_INVALID: [
    asked('owner', ['POST', SERVICES, () => ({ text: '{' })]),
    asked(undefined, ['GET', () => '/v1/edge', () => ({ headers: { origin: 'https://evil.test' } })]),
    asked(undefined, ['GET', () => '/v1/edge', () => ({ headers: { host: 'evil.test' } })], {
      at: 'a request for another host',
    }),
  ],
  REQUEST_TOO_LARGE: [asked('owner', ['POST', SERVICES, () => ({ text: 'x'.repeat(1_100_000) })])],
  ADDRESS_INVALID: [
    asked('owner', [
      'POST',
      () => '/v1/policy/test',
      ({ service }) => ({ body: { service: service.label, identity: 'x' } }),
    ]),
  ],
  DOMAIN_INVALID: [
    asked('owner', ['PATCH', of, () => ({ body: { allow: { ...NOBODY, emailDomains: ['*.com'] } } })]),
  ],
  LABEL_INVALID: [
    asked('owner', [
      'POST',
      SERVICES,
      () => ({
        body: {
          name: randomUUID(),
          type: 'tls',
          label: '-x-',
          allow: { ...NOBODY, emailDomains: ['a.com'] },
        },
      }),
    ]),
  ],
  SSH_KEY_INVALID: [
    asked('dev', ['POST', () => '/v1/certificates/ssh', (scene) => sshBody(scene, 'ssh-ed25519 AAAA')]),
  ],
  PRINCIPAL_INVALID: [asked('owner', ['PATCH', of, () => ({ body: { ssh: { principals: ['a,b'] } } })])],
  WORKLOAD_INVALID: [
    asked('owner', [
      'POST',
      () => '/v1/certificates/workload',
      ({ service }) => ({ body: { host: service.label, name: 'a b', csr: newCsr() } }),
    ]),
  ],
  DURATION_INVALID: [
    asked('owner', ['POST', (scene) => of(scene, '/enroll-tokens'), () => ({ body: { ttlMs: 1e12 } })]),
  ],
  ALLOW_LIST_EMPTY: [
    asked('owner', ['POST', SERVICES, () => ({ body: { name: randomUUID(), type: 'tls', allow: NOBODY } })]),
  ],
  ALLOW_LIST_DIFFERS: [
    asked('owner', [
      'POST',
      SERVICES,
      ({ service }) => ({
        body: { name: service.name, type: 'tls', allow: { ...NOBODY, emailDomains: ['a.com'] } },
      }),
    ]),
  ],
  POLICY_INVALID: [
    asked('owner', [
      'PUT',
      (scene) => of(scene, '/policy'),
      () => ({ body: { revision: 0, policy: { allow: [{}] } } }),
    ]),
  ],
  LABEL_TAKEN: [
    asked('other', [
      'POST',
      SERVICES,
      ({ service }) => ({
        body: {
          name: randomUUID(),
          type: 'tls',
          label: service.label,
          allow: { ...NOBODY, emailDomains: ['a.com'] },
        },
      }),
    ]),
  ],
  NAME_TAKEN: [
    {
      at: 'PATCH /v1/services/:ref',
      async provoke({ stage, owner, service }) {
        const { name } = await stage.service(owner)
        return heard(await stage.api('PATCH', of({ service } as Scene), { as: owner, body: { name } }))
      },
      type: 'request.refused',
      who: 'owner',
    },
  ],
  SERVICE_UNKNOWN: [
    asked('other', ['GET', of]),
    asked('other', [
      'POST',
      () => '/v1/revocations',
      ({ service }) => ({ body: { service: service.label } }),
    ]),
  ],
  SESSION_UNKNOWN: [
    asked('other', [
      'POST',
      () => '/v1/revocations',
      ({ owner }) => ({ body: { sessionId: owner.session.id } }),
    ]),
  ],
  CONNECTOR_UNKNOWN: [
    asked('other', ['POST', () => '/v1/revocations', () => ({ body: { connectorId: 'con_none' } })]),
  ],
  IDENTITY_UNKNOWN: [asked('admin', ['DELETE', () => '/v1/locks/nobody@mycorp.com'])],
  CERTIFICATE_UNKNOWN: [
    asked('other', ['POST', () => '/v1/revocations', () => ({ body: { certificateSerial: 'abcdef' } })]),
  ],
  REVISION_CONFLICT: [asked('owner', ['PATCH', of, () => ({ body: { revision: 99, name: 'x' } })])],
  FLOW_UNKNOWN: [
    asked('guest', ['GET', () => '/v1/flows/none']),
    asked('guest', ['GET', () => '/v1/flows/none/explanation']),
    asked('guest', ['POST', () => '/v1/revocations', () => ({ body: { flowId: 'none' } })]),
  ],
  NOT_FOUND: [
    asked(undefined, ['GET', () => '/v1/nothing']),
    { ...signInPage('GET', '/login/nothing'), at: 'a page of the sign-in' },
  ],
  SIGN_IN_REQUIRED: [
    asked(undefined, ['GET', () => '/v1/session']),
    asked(undefined, ['GET', () => '/v1/session', () => ({ headers: { authorization: 'Bearer x' } })], {
      at: 'a Bearer token',
    }),
  ],
  SESSION_ENDED: [
    {
      at: 'GET /v1/session',
      async provoke({ stage, guest }) {
        await endSession(stage.store.db, guest.session.id, { reason: 'revoked', now: stage.now() })
        return heard(await stage.api('GET', '/v1/session', { as: guest }))
      },
      type: 'request.refused',
    },
    {
      at: 'a flow',
      async provoke(scene) {
        const { stage, dev, service } = scene
        const credential = await stage.clientCertificate(dev, service)
        await endSession(stage.store.db, dev.session.id, { reason: 'revoked', now: stage.now() })
        return dialFlow(scene, credential)
      },
      type: 'flow.refused',
    },
  ],
  LOGIN_FAILED: [
    { ...signInPage('GET', `/login/${'x'.repeat(21)}`), at: 'a sign-in of another browser' },
    { ...signInPage('GET', '/oauth/auth?client_id=nobody'), at: 'a sign-in for an unknown program' },
    {
      at: 'a token for an unknown code',
      async provoke({ stage }) {
        const { status } = await stage.api('POST', '/oauth/token', {
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
          text: 'client_id=nobody&grant_type=authorization_code&code=x',
        })
        assert.equal(status, 401)
        return { code: 'LOGIN_FAILED' } // what postern makes of it
      },
      type: 'request.refused',
      line: 'login.grant_refused',
    },
  ],
  DPOP_INVALID: [
    asked(undefined, [
      'GET',
      () => '/v1/session',
      () => ({ headers: { authorization: 'DPoP x', dpop: 'x' } }),
    ]),
  ],
  CLOCK_OFF: [
    {
      at: 'the renewal of a connector',
      provoke: async (scene) => renew(scene, await connectorOf(scene), { iat: 1_000_000 }),
      type: 'request.refused',
    },
  ],
  IDENTITY_LOCKED: [
    {
      at: 'the API',
      async provoke(scene) {
        await locked(scene)
        return heard(await scene.stage.api('GET', '/v1/session', { as: scene.dev }))
      },
      type: 'request.refused',
    },
    {
      at: 'a flow',
      async provoke(scene) {
        await locked(scene)
        return flowOf(scene)
      },
      type: 'flow.refused',
    },
    {
      at: 'a live flow',
      async provoke(scene) {
        const { client } = await relayed(scene)
        await locked(scene)
        return cut(client)
      },
      type: 'flow.closed',
      who: 'dev',
    },
  ],
  ACCESS_DENIED: [
    asked('guest', ['POST', () => '/v1/certificates/client', certificateBody], {
      type: 'certificate.refused',
    }),
    asked('guest', ['POST', () => '/v1/certificates/ssh', (scene) => sshBody(scene)], {
      type: 'certificate.refused',
    }),
    asked('guest', ['GET', (scene) => of(scene, '/ssh-host-keys')]),
    { at: 'a flow', provoke: (scene) => flowOf(scene, scene.guest), type: 'flow.decided', who: 'guest' },
  ],
  OUTSIDE_HOURS: conditional(({ stage }) => ({
    hours: [{ days: [anotherDay(stage.now())], from: '00:00', to: '24:00', timeZone: 'UTC' }],
  })),
  NETWORK_NOT_ALLOWED: conditional(() => ({ sourceNetworks: ['203.0.113.0/24'] })),
  STRONGER_LOGIN_REQUIRED: conditional(() => ({ amr: ['mfa'] })),
  LOGIN_TOO_OLD: [
    ...conditional(() => ({ maxLoginAgeMs: 1_000 }), 2_000),
    {
      at: 'what an administrator revokes',
      on: { limits: { adminLoginAgeMs: 60_000 } },
      async provoke({ stage, admin }) {
        stage.clock.aheadMs = 61_000
        return heard(await stage.api('POST', '/v1/revocations', { as: admin, body: { flowId: 'none' } }))
      },
      type: 'request.refused',
      who: 'admin',
    },
  ],
  SESSION_KIND_NOT_ALLOWED: conditional(() => ({ sessionKinds: ['device'] })),
  TOO_MANY_FLOWS: [
    {
      at: 'a flow',
      async provoke(scene) {
        await require(scene, { limits: { maxFlowsPerIdentity: 1 } })
        await relayed(scene)
        return flowOf(scene)
      },
      type: 'flow.decided',
      who: 'dev',
    },
  ],
  FLOW_TOO_LONG: [
    {
      at: 'a live flow',
      async provoke(scene) {
        await require(scene, { limits: { maxFlowLengthMs: 1_000 } })
        return cut((await relayed(scene)).client)
      },
      type: 'flow.closed',
      who: 'dev',
    },
  ],
  OPERATOR_REQUIRED: [
    asked('guest', ['POST', SERVICES, () => ({ body: { name: 'x', type: 'tls' } })]),
    asked('guest', ['POST', () => '/v1/connectors', () => ({ body: {} })]),
  ],
  AUDITOR_REQUIRED: [
    asked('owner', ['GET', () => '/v1/audit']),
    asked('owner', ['GET', () => '/v1/audit/export']),
    asked('owner', ['GET', () => '/v1/locks']),
  ],
  ADMIN_REQUIRED: [
    asked('owner', ['POST', () => '/v1/locks', () => ({ body: {} })]),
    asked('owner', ['POST', () => '/v1/revocations', () => ({ body: { email: 'dev@mycorp.com' } })]),
  ],
  CERTIFICATE_REFUSED: [
    {
      at: 'a flow with one that is not in the store',
      async provoke(scene) {
        const { stage, dev, service } = scene
        return dialFlow(scene, await stage.clientCertificate(dev, service, { isUnknown: true }))
      },
      type: 'flow.refused',
    },
    {
      at: 'the handshake of a flow',
      provoke: async (scene) =>
        shakeHands(scene, `${scene.service.label}.${DOMAIN}`, ALPN_FLOW, await connectorOf(scene)),
      type: 'flow.refused',
      line: undefined,
    },
    {
      at: 'the handshake of a data connection',
      provoke: async (scene) =>
        shakeHands(scene, DOMAIN, ALPN_DATA, await scene.stage.clientCertificate(scene.dev, scene.service)),
      type: 'connector.refused',
      line: undefined,
    },
    {
      at: 'the handshake of a connector',
      provoke: async (scene) => shakeHands(scene, `mtls.${DOMAIN}`, 'http/1.1'),
      type: 'connector.refused',
      line: undefined,
    },
    {
      at: 'the renewal of an unknown connector',
      async provoke(scene) {
        const connector = await connectorOf(scene)
        return renew(scene, connector, { serial: 'abcdef' })
      },
      type: 'request.refused',
    },
  ],
  CERTIFICATE_REVOKED: [
    {
      at: 'a flow',
      async provoke(scene) {
        const { stage, dev, service } = scene
        const credential = await stage.clientCertificate(dev, service)
        await revokeCertificate(stage.store.db, credential.serial, { reason: 'revoked', now: stage.now() })
        return dialFlow(scene, credential)
      },
      type: 'flow.refused',
    },
  ],
  CERTIFICATE_EXPIRED: [
    {
      at: 'a flow',
      async provoke(scene) {
        const credential = await scene.stage.clientCertificate(scene.dev, scene.service)
        scene.stage.clock.aheadMs = 600_000
        return dialFlow(scene, credential)
      },
      type: 'flow.refused',
    },
    {
      at: 'a connector',
      async provoke(scene) {
        const credential = await connectorOf(scene)
        scene.stage.clock.aheadMs = 2 * 86_400_000
        return attachHeard(scene, credential)
      },
      type: 'connector.refused',
    },
    {
      at: 'the renewal of a connector',
      async provoke(scene) {
        const credential = await connectorOf(scene)
        scene.stage.clock.aheadMs = 40 * 86_400_000
        return renew(scene, credential)
      },
      type: 'request.refused',
    },
  ],
  TRUSTED_CRL_EXPIRED: [
    {
      at: 'a flow of a partner whose CA has no newer list',
      async provoke(scene) {
        const ca = await makeCa('Acme Root')
        const crl = await makeCrl(ca)
        await require(scene, {
          trustedClientCas: [{ name: 'acme', certificate: ca.pem, crl }],
          allow: [{ subjects: [{ ca: 'acme', fields: [{ type: 'CN', equals: 'sensor-7' }] }] }],
        })
        scene.stage.clock.aheadMs = 86_400_000
        return dialFlow(
          scene,
          await makeLeaf(ca, [{ CN: [{ utf8String: 'sensor-7' }] }], { startsInMs: -60_000 }),
        )
      },
      type: 'flow.decided',
      program: 'x509:acme:CN=sensor-7',
    },
  ],
  CERTIFICATE_NOT_RENEWABLE: [
    {
      at: 'a program at its end',
      async provoke({ stage, owner, service }) {
        const times = { ttlMs: 3_600_000, lifetimeMs: 3_600_000 }
        return heard(await stage.renewWorkload(await stage.workloadCertificate(owner, service, times)))
      },
      type: 'certificate.refused',
      program: PROGRAM,
    },
  ],
  CERTIFICATE_SUPERSEDED: [
    {
      at: 'the renewal that shows it',
      async provoke({ stage, owner, service }) {
        const credential = await stage.workloadCertificate(owner, service)
        assert.equal((await stage.renewWorkload(credential)).status, 201)
        return heard(await stage.renewWorkload(credential))
      },
      type: 'certificate.refused',
      besides: 'workload.superseded',
      program: PROGRAM,
    },
    {
      at: 'a flow of a program whose key was in two places',
      async provoke(scene) {
        const { stage, owner, service } = scene
        const credential = await stage.workloadCertificate(owner, service)
        for (const status of [201, 403]) assert.equal((await stage.renewWorkload(credential)).status, status)
        stage.gates.events.splice(0)
        stage.log.lines.splice(0)
        return dialFlow(scene, credential)
      },
      type: 'flow.refused',
    },
  ],
  CERTIFICATE_WRONG_SERVICE: [
    {
      at: 'a flow',
      async provoke(scene) {
        const { stage, dev, owner } = scene
        return dialFlow(scene, await stage.clientCertificate(dev, await stage.service(owner)))
      },
      type: 'flow.refused',
      who: 'dev',
    },
  ],
  ENROLL_TOKEN_INVALID: [
    {
      at: 'a token that nobody has made',
      provoke: (scene) => enroll(scene, `postern_enroll_${'x'.repeat(43)}`),
      type: 'enroll_token.refused',
    },
    {
      at: 'a token that was used',
      async provoke(scene) {
        const { stage, owner } = scene
        const made = await stage.api('POST', of(scene, '/enroll-tokens'), { as: owner, body: {} })
        await stage.api('POST', '/v1/connectors/enroll', { body: enrollBody(scene, made.json.token) })
        return enroll(scene, made.json.token)
      },
      type: 'enroll_token.refused',
      who: 'owner',
    },
  ],
  SSH_CA_UNKNOWN: [asked(undefined, ['GET', () => '/v1/ssh/krl?ca=SHA256%3Ax'])],
  HOST_KEY_CHANGED: [
    {
      at: 'a report of a connector',
      async provoke(scene) {
        const connector = await connectorOf(scene)
        const report = async (key: string) => {
          const jws = await callOf(scene, connector, SSH_HOST_KEYS_JWS_TYPE, { hostKeys: [key] })
          return scene.stage.api('POST', '/v1/connectors/ssh-host-keys', { body: { jws } })
        }
        assert.equal((await report(SSH_KEY)).status, 200)
        return heard(await report(SSH_KEY.replace('h8g', 'h8h')))
      },
      type: 'connector.refused',
      line: 'api.refused',
    },
  ],
  FLOW_REVOKED: [
    {
      at: 'a live flow',
      async provoke(scene) {
        const { client } = await relayed(scene)
        const { stage, dev } = scene
        await stage.api('POST', '/v1/revocations', { as: dev, body: { sessionId: dev.session.id } })
        return cut(client)
      },
      type: 'flow.closed',
      who: 'dev',
    },
  ],
  EDGE_STOPPING: [
    {
      at: 'a flow',
      on: {},
      async provoke(scene) {
        await relayed(scene)
        void scene.stage.edge.close({ deadlineMs: 600_000 })
        return flowOf(scene)
      },
      type: 'flow.refused',
    },
    {
      at: 'a connector',
      on: {},
      async provoke(scene) {
        await relayed(scene)
        void scene.stage.edge.close({ deadlineMs: 600_000 })
        return attachHeard(scene, await connectorOf(scene))
      },
      type: 'connector.refused',
    },
  ],
  SERVICE_OFFLINE: [{ at: 'a flow', provoke: (scene) => flowOf(scene), type: 'flow.closed', who: 'dev' }],
  SERVICE_REFUSED: [saidByConnector('SERVICE_REFUSED')],
  SERVICE_UNREACHABLE: [saidByConnector('SERVICE_UNREACHABLE')],
  FLOW_CUT: [
    {
      at: 'a live flow',
      async provoke(scene) {
        const { client, data } = await relayed(scene)
        data.socket.destroy()
        return cut(client)
      },
      type: 'flow.closed',
      who: 'dev',
    },
  ],
  PROTOCOL_INVALID: [
    {
      at: 'a connector',
      provoke: async (scene) => attachHeard(scene, await connectorOf(scene), 'nonsense'),
      type: 'connector.refused',
    },
    {
      at: 'a data connection',
      async provoke(scene) {
        const peer = await dataOf(scene)
        peer.end.send('ok', { flowId: 'none' })
        return { code: (await peer.cut()).code }
      },
      type: 'connector.refused',
      line: 'connector.data_refused',
    },
  ],
  CONNECTOR_REFUSED: [
    {
      at: 'a connector of a service that is gone',
      async provoke(scene) {
        const credential = await connectorOf(scene)
        await deleteService(scene.stage.store.db, scene.service.id, scene.stage.now())
        return attachHeard(scene, credential)
      },
      type: 'connector.refused',
    },
    {
      at: 'its renewal',
      async provoke(scene) {
        const credential = await connectorOf(scene)
        await deleteService(scene.stage.store.db, scene.service.id, scene.stage.now())
        return renew(scene, credential)
      },
      type: 'connector.refused',
      line: 'api.refused',
    },
    {
      at: 'a data connection for an attachment that is not there',
      async provoke(scene) {
        const peer = await dataOf(scene)
        peer.end.send('hello', { version: 1, attachmentId: 'none' })
        return { code: (await peer.cut()).code }
      },
      type: 'connector.refused',
      line: 'connector.data_refused',
    },
  ],
  CONNECTOR_SUPERSEDED: [
    {
      at: 'a connector whose key was in two places',
      async provoke(scene) {
        const credential = await connectorOf(scene)
        const { db } = scene.stage.store
        await revokeConnectorLineage(db, credential.connectorId, {
          reason: 'superseded',
          now: scene.stage.now(),
        })
        return attachHeard(scene, credential)
      },
      type: 'connector.refused',
    },
    {
      at: 'the renewal that shows it',
      async provoke(scene) {
        const credential = await connectorOf(scene)
        const jws = await callOf(scene, credential, RENEW_JWS_TYPE, { csr: newCsr() })
        assert.equal((await scene.stage.api('POST', '/v1/connectors/renew', { body: { jws } })).status, 201)
        return renew(scene, credential)
      },
      type: 'connector.refused',
      besides: 'connector.superseded',
      line: 'api.refused',
    },
  ],
  RATE_LIMITED: [
    {
      at: 'flows of one person',
      on: { limits: { flowsPerMinute: 1 } },
      async provoke(scene) {
        await relayed(scene)
        return flowOf(scene)
      },
      type: 'flow.refused',
      who: 'dev',
    },
    {
      at: 'flows of the edge',
      on: { limits: { maxFlows: 0 } },
      provoke: (scene) => flowOf(scene),
      type: 'flow.refused',
    },
    ...(['client', 'ssh'] as const).map(
      (kind): Case => ({
        at: `certificates of one person, ${kind}`,
        on: { limits: { certificatesPerMinute: 1 } },
        async provoke(scene) {
          const { stage, dev } = scene
          const ask = (options: object) =>
            stage.api('POST', `/v1/certificates/${kind}`, { as: dev, ...options })
          const body = kind === 'ssh' ? sshBody(scene) : certificateBody(scene)
          assert.equal((await ask(body)).status, 201)
          return heard(await ask(body))
        },
        type: 'certificate.refused',
        who: 'dev',
      }),
    ),
    {
      at: 'enroll tokens of one address',
      on: {},
      async provoke(scene) {
        for (let tries = 0; tries < 20; tries++) await enroll(scene, 'x')
        return enroll(scene, 'x')
      },
      type: 'request.refused',
    },
  ],
  STORE_LOST: [
    {
      at: 'the API',
      on: {},
      async provoke(scene) {
        const restore = await loseStore(scene)
        const told = heard(await scene.stage.api('GET', '/v1/session'))
        await restore()
        return told
      },
      type: 'request.refused',
      line: undefined, // once, as store.lost
    },
    {
      at: 'a flow',
      on: {},
      async provoke(scene) {
        const credential = await scene.stage.clientCertificate(scene.dev, scene.service)
        const restore = await loseStore(scene)
        const told = await dialFlow(scene, credential)
        await restore()
        return told
      },
      type: 'flow.refused',
    },
  ],
  RECORD_FAILED: [
    {
      at: 'a flow, without its name, which cannot be written',
      async provoke(scene) {
        const gate = scene.stage.gates.hold('record flow.decided')
        void gate.reached.then(() => gate.fail(new PosternError('RECORD_FAILED', 'disk full')))
        return flowOf(scene)
      },
      type: 'flow.refused',
    },
    {
      at: 'the API',
      async provoke(scene) {
        const gate = scene.stage.gates.hold('record service.deleted')
        void gate.reached.then(() => gate.fail(new PosternError('RECORD_FAILED', 'disk full')))
        return heard(await scene.stage.api('DELETE', of(scene), { as: scene.owner }))
      },
      type: 'request.refused',
      who: 'owner',
      line: 'api.failed',
    },
    {
      at: 'the API, when the refusal cannot be written either',
      async provoke(scene) {
        const { gates } = scene.stage
        const held = [gates.hold('record service.deleted'), gates.hold('record request.refused')]
        for (const gate of held) {
          void gate.reached.then(() => gate.fail(new PosternError('RECORD_FAILED', 'disk full')))
        }
        return heard(await scene.stage.api('DELETE', of(scene), { as: scene.owner }))
      },
      type: 'request.refused',
      line: 'api.failed',
    },
  ],
  INTERNAL: [
    {
      at: 'the API',
      on: {},
      async provoke(scene) {
        scene.stage.gates.unreadableTable = 'services'
        return heard(await scene.stage.api('GET', '/v1/services', { as: scene.owner }))
      },
      type: 'request.refused',
      who: 'owner',
      line: 'api.failed',
    },
    {
      at: 'a flow',
      on: {},
      async provoke(scene) {
        const credential = await scene.stage.clientCertificate(scene.dev, scene.service)
        scene.stage.gates.unreadableTable = 'certificates'
        return dialFlow(scene, credential)
      },
      type: 'flow.refused',
    },
  ],
}

/** A page that says the code. */
function signInPage(method: string, target: string): Omit<Case, 'at'> {
  return {
    async provoke({ stage }) {
      const { text } = await stage.api(method, target)
      const code = /\b[A-Z]+_[A-Z_]+\b/.exec(text)?.[0]
      return heard({ code })
    },
    type: 'request.refused',
    line: 'login.request_refused',
  }
}

function saidByConnector(code: 'SERVICE_REFUSED' | 'SERVICE_UNREACHABLE'): Case {
  return {
    at: 'a flow, by its connector',
    async provoke(scene) {
      const { stage, dev, owner, service } = scene
      const { data } = await stage.attach(await stage.connectorCertificate(owner, service), { warm: 1 })
      const client = await stage.openFlow(service, await stage.clientCertificate(dev, service))
      await data[0]!.control()
      data[0]!.end.abort(new PosternError(code, 'said by the connector'))
      return cut(client)
    },
    type: 'flow.closed',
    who: 'dev',
  }
}

const enrollBody = ({ service }: Scene, token: string) => ({
  ...{ token, csr: newCsr(newKey().privateKey), machine: 'build-7' },
  ...{ name: service.name, label: service.label },
})

async function enroll(scene: Scene, token: string): Promise<Told> {
  return heard(await scene.stage.api('POST', '/v1/connectors/enroll', { body: enrollBody(scene, token) }))
}

/** A data connection that has said nothing yet. */
async function dataOf(scene: Scene): Promise<Peer> {
  const credential = await connectorOf(scene)
  return new Peer(await scene.stage.dial({ serverName: DOMAIN, alpn: [ALPN_DATA], credential }))
}

async function setScene(stage: EdgeStage): Promise<Scene> {
  const owner = await stage.person('op@mycorp.com')
  return {
    stage,
    owner,
    other: await stage.person('other@contractor.com'),
    admin: await stage.person('admin@mycorp.com'),
    // one nobody has locked, cut or counted before
    dev: await stage.person(`dev-${randomUUID()}@mycorp.com`),
    guest: await stage.person('guest@elsewhere.org'),
    service: await stage.service(owner),
  }
}

type Refusal = AuditEvent & {
  code: ErrorCode
  email?: string
  flowId?: string
  requestId?: string
  decision?: string
}

function refusalsOf({ gates }: EdgeStage, code: ErrorCode): Refusal[] {
  return gates.events.filter((event): event is Refusal => 'code' in event && event.code === code)
}

async function assertRecorded(
  scene: Scene,
  code: ErrorCode,
  { type, who, program, besides, provoke, ...rest }: Case,
) {
  const { stage } = scene
  stage.gates.events.splice(0)
  stage.log.lines.splice(0)
  const told = await provoke(scene)
  if (told.code !== undefined) assert.equal(told.code, code)
  await stage.gates.recorded(type, (event) => (event as Refusal).code === code)
  const found = refusalsOf(stage, code).filter((event) => event.type !== besides)
  assert.deepEqual(
    found.map((event) => event.type),
    [type],
    'one event, and of this type',
  )
  if (besides) assert.equal(refusalsOf(stage, code).length, 2)
  const event = found[0]!
  const name = program ?? (who && scene[who].identity.email)
  if (name) assert.equal(event.email, name)
  else assert.ok(isStrangersRefusal(event), 'who has no name is counted')
  if (type === 'flow.decided') assert.equal(event.decision, 'deny')
  assertSaysTheSame(stage, event, told, 'line' in rest ? rest.line : LINES[type])
}

/** The person, the log and the audit log: one code, and one id to find it by. */
function assertSaysTheSame(stage: EdgeStage, event: Refusal, told: Told, line: string | undefined): void {
  if (event.type.startsWith('flow.') && told.code !== undefined) {
    assert.ok(typeof told.flowId === 'string' && told.flowId !== '')
    if (event.flowId !== undefined) assert.equal(event.flowId, told.flowId)
  }
  if (line === undefined) return
  const lines = stage.log.events(line).filter(({ code }) => code === event.code)
  assert.equal(lines.length, 1, `${line}: ${JSON.stringify(stage.log.lines)}`)
  if (told.flowId !== undefined) assert.equal(lines[0]!.flowId, told.flowId)
  if (event.requestId !== undefined) assert.equal(lines[0]!.requestId, event.requestId)
}

describe('every refusal leaves one event with its code', () => {
  let shared: EdgeStage
  before(async () => {
    shared = await startEdgeStage()
  })
  after(() => shared[Symbol.asyncDispose]())

  for (const [code, cases] of Object.entries(CASES) as [ErrorCode, Case[]][]) {
    for (const refusal of cases) {
      it(`${code}: ${refusal.at}`, async () => {
        if (refusal.on) {
          await using stage = await startEdgeStage(refusal.on)
          return await assertRecorded(await setScene(stage), code, refusal)
        }
        shared.clock.aheadMs = 0
        await assertRecorded(await setScene(shared), code, refusal)
      })
    }
  }

  it('LOGIN_REFUSED: at the sign-in', async () => {
    await using stage = await startStage()
    stage.upstream.claims = { email: 'dev@mycorp.com', email_verified: false }
    const page = await new Browser().open((await (await createCli(stage)).begin()).url)
    assert.equal(codeOn(page), 'LOGIN_REFUSED')
    const [event, ...others] = stage.events as Refusal[]
    assert.deepEqual(
      [event?.type, event?.code, event?.email],
      ['login.refused', 'LOGIN_REFUSED', 'dev@mycorp.com'],
    )
    assert.deepEqual([others, stage.refusals], [[], []])
  })

  it('SESSION_ENDED and IDENTITY_LOCKED: at the refresh, where nobody has a name any more', async () => {
    await using stage = await startStage()
    for (const code of ['IDENTITY_LOCKED', 'SESSION_ENDED'] as const) {
      const { cli, tokens } = await logIn(stage)
      const { identity, session } = (await cli.whoami(tokens.access_token)).body
      const { db } = stage.store
      const email = identity!.email as EmailAddress
      const lock = { email, reason: 'left', lockedAt: 1, lockedBy: identity!.id }
      if (code === 'SESSION_ENDED') await stage.login.endSession(session!.id, 'revoked')
      else await lockAddress(db, { ...lock, until: undefined })
      stage.refusals.splice(0)
      await assert.rejects(
        oidc.refreshTokenGrant(cli.config, tokens.refresh_token!, undefined, { DPoP: cli.DPoP }),
      )
      assert.deepEqual(
        stage.refusals.map(({ type, code }) => [type, code]),
        [['request.refused', code]],
      )
      if (code === 'IDENTITY_LOCKED') await unlockAddress(db, email)
    }
  })

  it('nobody is refused who is asked for a nonce', async () => {
    const scene = await setScene(shared)
    shared.gates.events.splice(0)
    const answer = await shared.api('GET', '/v1/session', { as: scene.guest, nonce: 'old' })
    assert.equal(answer.code, 'DPOP_INVALID')
    assert.deepEqual(shared.gates.events, [])
  })
})

describe('the table of errors', () => {
  const walked = new Set<string>([...Object.keys(CASES), 'LOGIN_REFUSED'])

  it('is walked, but for what no edge answers', () => {
    const never = Object.keys(NEVER_THE_EDGES)
    assert.deepEqual(
      never.filter((code) => walked.has(code)),
      [],
    )
    assert.deepEqual([...walked, ...never].sort(), Object.keys(ERRORS).sort())
  })

  it('has nothing among those that the edge answers all the same', () => {
    const folder = path.join(import.meta.dirname, '..')
    const files = ANSWERING.flatMap((part) => globSync(`${part}/*.ts`, { cwd: folder }))
    assert.ok(files.length > 50)
    const said = files
      .filter((file) => !/\.test\.ts$|-stage\.ts$/.test(file))
      .flatMap((file) => {
        const text = readFileSync(path.join(folder, file), 'utf8')
        const codes = Object.keys(NEVER_THE_EDGES).filter((code) => text.includes(`'${code}'`))
        return codes.map((code) => `${file} ${code}`)
      })
    assert.deepEqual(
      said.filter((place) => !AT_THE_START.has(place)),
      [],
    )
  })
})
