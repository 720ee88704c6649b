import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { EmailAddress } from '@postern/shared/email'
import { parseWorkloadName } from '@postern/shared/workload-name'
import { AUTHORITY_KINDS, type Authorities, type AuthorityKind, createAuthorities } from './authorities.ts'
import {
  type ClientCertificateRequest,
  clientSubjectAltName,
  issueClientCertificate,
} from './issue-client.ts'
import { connectorSubjectAltName, issueConnectorCertificate } from './issue-connector.ts'
import {
  edgeSubjectAltName,
  isDueForRenewal,
  issueEdgeCertificate,
  renewEdgeCertificate,
} from './issue-edge.ts'
import { issueServerCertificate } from './issue-server.ts'
import { issueWorkloadCertificate, workloadSubjectAltName } from './issue-workload.ts'
import type { IssuedLeaf } from './leaf.ts'
import { spkiHash } from './public-key.ts'

const DOMAIN = 'edge.example.com'
const HOUR_MS = 3_600_000
const now = Date.now()
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-leaf-'))
const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
let authorities: Authorities

before(async () => {
  authorities = await createAuthorities(scratch, now)
})
after(() => rmSync(scratch, { recursive: true }))

const CLIENT: ClientCertificateRequest = {
  domain: DOMAIN,
  email: 'dev@mycorp.com' as EmailAddress,
  serviceId: 'svc_1',
  publicKey,
  sessionExpiresAt: now + 12 * HOUR_MS,
  ttlMs: 300_000,
  backdateMs: 300_000,
}
const client = (changes: Partial<ClientCertificateRequest> = {}) =>
  issueClientCertificate(authorities.client, { ...CLIENT, ...changes }, now)
const connector = () =>
  issueConnectorCertificate(
    authorities.connector,
    { domain: DOMAIN, connectorId: 'con_1', publicKey, ttlMs: 24 * HOUR_MS, backdateMs: 300_000 },
    now,
  )
const edge = () => issueEdgeCertificate(authorities.edge, DOMAIN, now)
const WORKLOAD = { domain: DOMAIN, serviceId: 'svc_1', name: parseWorkloadName('carbon-relay-3') }
const workload = () =>
  issueWorkloadCertificate(
    authorities.workload,
    { ...WORKLOAD, publicKey, notAfter: now + HOUR_MS, backdateMs: 300_000 },
    now,
  )
const SERVER = {
  names: [
    { type: 'dns', value: 'db.internal' },
    { type: 'dns', value: '*.db.internal' },
    { type: 'ip', value: '10.0.0.5' },
    { type: 'ip', value: '2001:db8::7' },
  ],
  ...{ publicKey, notAfter: now + HOUR_MS, backdateMs: 300_000 },
} as const
const server = () => issueServerCertificate(authorities.server, SERVER, now)
const issue: Record<AuthorityKind, () => Promise<IssuedLeaf>> = { client, connector, edge, workload, server }

function openssl(leaf: IssuedLeaf, command: 'verify' | 'text', ...args: string[]) {
  const file = path.join(scratch, `${leaf.serial}.pem`)
  writeFileSync(file, leaf.certificate)
  const argv =
    command === 'verify'
      ? ['verify', '-x509_strict', ...args, file]
      : ['x509', '-in', file, '-noout', '-text', ...args]
  const { status, stdout, stderr } = spawnSync('openssl', argv, { encoding: 'utf8' })
  return { ok: status === 0, output: stdout + stderr }
}
const caFile = (kind: AuthorityKind) => ['-CAfile', authorities[kind].certificateFile]

describe('certificates', () => {
  const purposes: Record<AuthorityKind, [string, string]> = {
    client: ['sslclient', 'sslserver'],
    connector: ['sslclient', 'sslserver'],
    edge: ['sslserver', 'sslclient'],
    workload: ['sslclient', 'sslserver'],
    server: ['sslserver', 'sslclient'],
  }
  for (const kind of AUTHORITY_KINDS) {
    it(`of kind ${kind} verify under their own CA, for their one purpose`, async () => {
      const leaf = await issue[kind]()
      const [purpose, other] = purposes[kind]
      const right = openssl(leaf, 'verify', ...caFile(kind), '-purpose', purpose)
      assert.ok(right.ok, right.output)
      assert.match(
        openssl(leaf, 'verify', ...caFile(kind), '-purpose', other).output,
        /unsuitable certificate/,
      )
    })

    it(`of kind ${kind} do not verify under the CA of another kind`, async () => {
      const leaf = await issue[kind]()
      for (const other of AUTHORITY_KINDS.filter((name) => name !== kind)) {
        assert.equal(openssl(leaf, 'verify', ...caFile(other)).ok, false, `${kind} under ${other}`)
        assert.equal(new X509Certificate(leaf.certificate).verify(authorities[other].publicKey), false)
      }
      assert.equal(new X509Certificate(leaf.certificate).verify(authorities[kind].publicKey), true)
    })

    it(`of kind ${kind} cannot sign others`, async () => {
      const { output } = openssl(await issue[kind](), 'text')
      assert.match(output, /Basic Constraints: critical\s+CA:FALSE\n/)
      assert.match(output, /Key Usage: critical\s+Digital Signature\n/)
      const usage = `TLS Web ${purposes[kind][0] === 'sslserver' ? 'Server' : 'Client'} Authentication`
      assert.match(output, new RegExp(`Extended Key Usage: *\\n\\s+${usage}\\n`))
    })

    it(`of kind ${kind} say what was returned about them`, async () => {
      const leaf = await issue[kind]()
      const parsed = new X509Certificate(leaf.certificate)
      assert.equal(parsed.serialNumber.toLowerCase(), leaf.serial)
      assert.match(leaf.serial, /^[4-7][0-9a-f]{31}$/)
      assert.equal(parsed.validFromDate.getTime(), leaf.notBefore)
      assert.equal(parsed.validToDate.getTime(), leaf.notAfter)
      assert.equal(spkiHash(parsed.publicKey), leaf.keyHash)
    })
  }

  it('are refused under an authority of another kind before anything is signed', async () => {
    await assert.rejects(issueClientCertificate(authorities.connector, CLIENT, now), TypeError)
    await assert.rejects(issueEdgeCertificate(authorities.client, DOMAIN, now), TypeError)
    const request = { ...WORKLOAD, publicKey, notAfter: now + HOUR_MS, backdateMs: 0 }
    await assert.rejects(issueWorkloadCertificate(authorities.client, request, now), TypeError)
    await assert.rejects(issueServerCertificate(authorities.edge, SERVER, now), TypeError)
  })
})

describe('a certificate of a private service', () => {
  it('has its names and addresses where programs look for them, and nothing that looks like a name elsewhere', async () => {
    const leaf = await server()
    const parsed = new X509Certificate(leaf.certificate)
    assert.equal(
      parsed.subjectAltName,
      'DNS:db.internal, DNS:*.db.internal, IP Address:10.0.0.5, IP Address:2001:DB8:0:0:0:0:0:7',
    )
    assert.equal(parsed.subject, 'CN=a private service')
    assert.equal(parsed.checkHost('db.internal'), 'db.internal')
    assert.equal(parsed.checkHost('one.db.internal'), '*.db.internal')
    assert.equal(parsed.checkHost('other.internal'), undefined)
    for (const address of ['10.0.0.5', '2001:db8::7']) assert.equal(parsed.checkIP(address), address)
  })

  it('does not verify with a name of the edge, though the CA has signed it', async () => {
    const own = await createAuthorities(path.join(scratch, 'of-a-domain'), now, { domain: DOMAIN })
    const sign = (name: string) =>
      issueServerCertificate(own.server, { ...SERVER, names: [{ type: 'dns', value: name }] }, now)
    const verify = async (name: string) =>
      openssl(await sign(name), 'verify', '-CAfile', own.server.certificateFile)
    const right = await verify('db.internal')
    assert.ok(right.ok, right.output)
    for (const name of [DOMAIN, `mtls.${DOMAIN}`, `crimson-thunder-8434.${DOMAIN}`, `*.${DOMAIN}`]) {
      assert.match((await verify(name)).output, /excluded subtree violation/, name)
    }
  })
})

describe('a client certificate', () => {
  it('names one person and one service', async () => {
    const parsed = new X509Certificate((await client()).certificate)
    assert.equal(parsed.subjectAltName, 'email:dev@mycorp.com, URI:postern://edge.example.com/service/svc_1')
    assert.equal(parsed.subjectAltName, clientSubjectAltName(CLIENT))
    assert.equal(parsed.subject, 'CN=dev@mycorp.com')
  })

  it('is named as Node prints it, whatever letters an address may have', async () => {
    for (const local of ["o'brien", '#0c0141', '!$%&*+-/=?^_`{|}~', 'a.b', 'x'.repeat(64)]) {
      const email = `${local}@sub-domain.example.com` as EmailAddress
      const parsed = new X509Certificate((await client({ email })).certificate)
      assert.equal(parsed.subjectAltName, clientSubjectAltName({ ...CLIENT, email }))
      assert.equal(parsed.subject.split('\n').length, 1, 'one part in the subject')
      assert.ok(openssl(await client({ email }), 'verify', ...caFile('client')).ok)
    }
  })

  it('is refused for an address that could pass for another', async () => {
    for (const email of ['a@b.co\0@mycorp.com', 'a, OU=admin@mycorp.com', 'ä@mycorp.com', 'mycorp.com']) {
      await assert.rejects(client({ email: email as EmailAddress }), { code: 'ADDRESS_INVALID' })
    }
  })

  it('is valid from the backdate to its time, and never past the end of the session', async () => {
    const leaf = await client()
    const second = (ms: number) => Math.floor(ms / 1_000) * 1_000
    assert.equal(leaf.notBefore, second(now - 300_000))
    assert.equal(leaf.notAfter, second(now + 300_000))
    const short = await client({ sessionExpiresAt: now + 60_500 })
    assert.equal(short.notAfter, second(now + 60_500))
    await assert.rejects(client({ sessionExpiresAt: now }), { code: 'SESSION_ENDED' })
  })

  it('takes the other kinds of key', async () => {
    const keys = [
      generateKeyPairSync('ed25519').publicKey,
      generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey,
      generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey,
    ]
    for (const key of keys) {
      const leaf = await client({ publicKey: key })
      assert.ok(openssl(leaf, 'verify', ...caFile('client'), '-purpose', 'sslclient').ok)
      assert.equal(spkiHash(new X509Certificate(leaf.certificate).publicKey), leaf.keyHash)
    }
  })
})

describe('a workload certificate', () => {
  it('names one program and one service', async () => {
    const leaf = await workload()
    const { subject, subjectAltName } = new X509Certificate(leaf.certificate)
    assert.equal(subject, 'CN=carbon-relay-3')
    assert.equal(subjectAltName, 'URI:postern://edge.example.com/service/svc_1/workload/carbon-relay-3')
    assert.equal(subjectAltName, workloadSubjectAltName(WORKLOAD))
    assert.equal(leaf.notAfter, Math.floor((now + HOUR_MS) / 1_000) * 1_000)
  })
})

describe('a connector certificate', () => {
  it('names one process for a day', async () => {
    const leaf = await connector()
    const { subjectAltName } = new X509Certificate(leaf.certificate)
    assert.equal(subjectAltName, 'URI:postern://edge.example.com/connector/con_1')
    assert.equal(subjectAltName, connectorSubjectAltName({ domain: DOMAIN, connectorId: 'con_1' }))
    assert.equal(leaf.notAfter, Math.floor((now + 24 * HOUR_MS) / 1_000) * 1_000)
  })
})

describe('the edge certificate', () => {
  it('covers the domain, the connectors’ name and every service, nothing deeper', async () => {
    const leaf = await edge()
    assert.equal(new X509Certificate(leaf.certificate).subjectAltName, edgeSubjectAltName(DOMAIN))
    const covers = (host: string) => openssl(leaf, 'verify', ...caFile('edge'), '-verify_hostname', host).ok
    for (const host of [DOMAIN, `mtls.${DOMAIN}`, `calm-river-17.${DOMAIN}`]) assert.ok(covers(host), host)
    for (const host of [`a.b.${DOMAIN}`, 'example.com']) assert.equal(covers(host), false, host)
  })

  it('is renewed long before it ends, and again', async (context) => {
    context.mock.timers.enable({ apis: ['setInterval'] })
    let clock = now
    const first = await edge()
    assert.equal(isDueForRenewal(first, now), false)
    const renewals: (typeof first)[] = []
    let seen = () => {}
    using _renewal = renewEdgeCertificate(authorities.edge, first, {
      domain: DOMAIN,
      clock: () => clock,
      onRenewed: (certificate) => {
        renewals.push(certificate)
        seen()
      },
      onError: assert.ifError,
    })
    context.mock.timers.tick(HOUR_MS)
    assert.equal(renewals.length, 0)
    for (const days of [20, 40]) {
      clock = now + days * 24 * HOUR_MS
      const renewed = new Promise<void>((resolve) => {
        seen = resolve
      })
      context.mock.timers.tick(HOUR_MS)
      await renewed
    }
    assert.equal(renewals.length, 2)
    assert.notEqual(renewals[0]!.key, first.key)
    assert.ok(renewals[1]!.notAfter > now + 60 * 24 * HOUR_MS)
  })
})
