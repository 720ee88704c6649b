import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { after, before, beforeEach, describe, it } from 'node:test'
import { type Credential, type EdgeStage, type Person, startEdgeStage } from '../../test/edge-stage.ts'
import { type Ca, DAY_MS, makeCa, makeCrl, makeLeaf, type Name } from '../../test/foreign-ca.ts'
import { readSubject, renderSubject } from '../ca/subject.ts'
import { x509 } from '../ca/x509.ts'
import type { ServiceRecord } from '../store/services.ts'

/** A partner's CA, trusted for one service: its certificates, and all that looks like them. */

const SENSOR: Name = [
  { C: [{ printableString: 'DE' }] },
  { O: [{ utf8String: 'Acme, Inc.' }] },
  { CN: [{ utf8String: 'sensor-7' }] },
]
const FIELDS = [
  { type: 'C', equals: 'DE' },
  { type: 'O', equals: 'Acme, Inc.' },
  { type: 'CN', equals: 'sensor-7' },
]

let stage: EdgeStage
let partner: Ca
let sensor: Credential
let owner: Person
let service: ServiceRecord
before(async () => {
  stage = await startEdgeStage()
  partner = await makeCa('Acme Root')
  sensor = await makeLeaf(partner, SENSOR)
})
after(() => stage[Symbol.asyncDispose]())
beforeEach(async () => {
  stage.clock.aheadMs = 0
  owner = await stage.person('op@mycorp.com')
  service = await stage.service(owner)
  stage.gates.events.splice(0)
})

async function put(policy: object, target = service) {
  const path = `/v1/services/${target.label}/policy`
  const { revision } = (await stage.api('GET', path, { as: owner })).json
  return stage.api('PUT', path, { as: owner, body: { revision, policy } })
}

const trusting = (fields: object[], ca = partner) => ({
  trustedClientCas: [{ name: 'acme', certificate: ca.pem }],
  allow: [{ subjects: [{ ca: 'acme', fields }] }],
})

async function apply(policy: object, target = service): Promise<void> {
  const { status, text } = await put(policy, target)
  assert.equal(status, 200, text)
}

/** `SERVICE_OFFLINE`: it was let in. `handshake`: its CA is not known there. */
async function told(credential: Credential, target = service): Promise<string> {
  const peer = await stage.openFlow(target, credential).catch(() => undefined)
  if (!peer) return 'handshake'
  const { code } = await peer.cut()
  return code === 'FLOW_CUT' ? 'handshake' : code
}

describe('a CA of somebody else', () => {
  it('is known to one service, and admits whom a rule names', async () => {
    const other = await stage.service(owner)
    assert.equal(await told(sensor), 'handshake')
    await apply({ trustedClientCas: trusting(FIELDS).trustedClientCas })
    assert.equal(await told(sensor), 'ACCESS_DENIED')
    await apply(trusting(FIELDS))
    assert.equal(await told(sensor), 'SERVICE_OFFLINE')
    assert.equal(await told(sensor, other), 'handshake')
    await apply(trusting(FIELDS, await makeCa('Other Root')), other)
    assert.equal(await told(sensor, other), 'handshake')
    const [, decided] = stage.gates.of('flow.decided')
    assert.equal(decided?.email, 'x509:acme:C=DE,O=Acme\\2c Inc.,CN=sensor-7')
    assert.equal(decided?.rule, 'allow rule for certificates of acme')
    // ours are good there as before, and nothing of theirs anywhere else
    assert.equal(
      await told(await stage.clientCertificate(await stage.person('dev@mycorp.com'), service)),
      'SERVICE_OFFLINE',
    )
    await assert.rejects(stage.renewWorkload(sensor))
  })

  const lookAlikes: [string, Name][] = [
    ['another order', [...(SENSOR as object[])].reverse() as Name],
    ['an extra field', [...(SENSOR as object[]), { OU: [{ utf8String: 'x' }] }] as Name],
    ['a field less', (SENSOR as object[]).slice(1) as Name],
    ['the same field twice', [...(SENSOR as object[]), { CN: [{ utf8String: 'sensor-7' }] }] as Name],
    [
      'two values in one field',
      [
        (SENSOR as object[])[0],
        { O: [{ utf8String: 'Acme, Inc.' }], CN: [{ utf8String: 'sensor-7' }] },
      ] as Name,
    ],
    [
      'another kind of text',
      [...(SENSOR as object[]).slice(0, 2), { CN: [{ printableString: 'sensor-7' }] }] as Name,
    ],
    ['a text of 16 bits', [...(SENSOR as object[]).slice(0, 2), { CN: [{ bmpString: 'sensor-7' }] }] as Name],
    ['a NUL', [...(SENSOR as object[]).slice(0, 2), { CN: [{ utf8String: 'sensor-7\0.acme' }] }] as Name],
    [
      'commas that pretend to be fields',
      [{ C: [{ printableString: 'DE' }] }, { O: [{ utf8String: 'Acme, Inc.,CN=sensor-7' }] }] as Name,
    ],
    ['another case', [...(SENSOR as object[]).slice(0, 2), { CN: [{ utf8String: 'Sensor-7' }] }] as Name],
    ['a space', [...(SENSOR as object[]).slice(0, 2), { CN: [{ utf8String: 'sensor-7 ' }] }] as Name],
    [
      'a letter that looks like one',
      [...(SENSOR as object[]).slice(0, 2), { CN: [{ utf8String: 'sensоr-7' }] }] as Name,
    ],
    ['another type', [...(SENSOR as object[]).slice(0, 2), { OU: [{ utf8String: 'sensor-7' }] }] as Name],
    ['no field at all', [] as unknown as Name],
  ]
  for (const [what, subject] of lookAlikes) {
    it(`refuses a subject that looks like it: ${what}`, async () => {
      await apply(trusting(FIELDS))
      const code = await told(await makeLeaf(partner, subject))
      assert.match(code, /^(ACCESS_DENIED|CERTIFICATE_REFUSED)$/)
    })
  }

  it('matches a pattern against the whole of a field, and nothing but it', async () => {
    const pattern = [...FIELDS.slice(0, 2), { type: 'CN', matches: 'sensor-*' }]
    await apply(trusting(pattern))
    assert.equal(await told(sensor), 'SERVICE_OFFLINE')
    for (const name of [
      'sensor-',
      'xsensor-7',
      'sensor-7 x',
      'sensor-7,x',
      'sensor-7/x',
      'Sensor-7',
      'sensor_7',
    ]) {
      const subject = [...(SENSOR as object[]).slice(0, 2), { CN: [{ utf8String: name }] }] as Name
      assert.equal(await told(await makeLeaf(partner, subject)), 'ACCESS_DENIED', name)
    }
  })

  it('takes a text as it is written only where the rule says so', async () => {
    const printable = await makeLeaf(partner, [{ CN: [{ printableString: 'sensor-7' }] }])
    await apply(trusting([{ type: 'CN', equals: 'sensor-7' }]))
    assert.equal(await told(printable), 'ACCESS_DENIED')
    await apply(trusting([{ type: 'CN', equals: 'sensor-7', string: 'printable' }]))
    assert.equal(await told(printable), 'SERVICE_OFFLINE')
    assert.equal(await told(await makeLeaf(partner, [{ CN: [{ utf8String: 'sensor-7' }] }])), 'ACCESS_DENIED')
  })

  it('says nothing of people and programs: their names in it are ignored', async () => {
    const names = [
      new x509.SubjectAlternativeNameExtension([
        { type: 'email', value: 'op@mycorp.com' },
        { type: 'url', value: `postern://edge.localhost/service/${service.id}` },
      ]),
    ]
    const subject: Name = [{ CN: [{ utf8String: 'op@mycorp.com' }] }, { E: [{ ia5String: 'op@mycorp.com' }] }]
    const pretender = await makeLeaf(partner, subject, { more: names })
    await apply({
      ...trusting(FIELDS),
      allow: [
        { anyAuthenticated: true },
        { emailAddresses: ['op@mycorp.com'] },
        { emailDomains: ['mycorp.com'] },
        { workloads: ['sensor-7'] },
        { subjects: trusting(FIELDS).allow[0]!.subjects },
      ],
    })
    assert.equal(await told(pretender), 'ACCESS_DENIED')
    const [decided] = stage.gates.of('flow.decided')
    assert.doesNotMatch(decided!.email, /@/)
    const like = await makeLeaf(partner, SENSOR, { more: names })
    assert.equal(await told(like), 'SERVICE_OFFLINE')
    assert.match(stage.gates.of('flow.decided').at(-1)!.email, /^x509:acme:/)
  })

  it('refuses certificates that are not for clients, not valid, or of another below it', async () => {
    await apply(trusting(FIELDS))
    const below = await makeCa('Acme Issuing', partner)
    const cases: [string, Promise<Credential>][] = [
      ['for servers', makeLeaf(partner, SENSOR, { usage: x509.ExtendedKeyUsage.serverAuth })],
      ['for anything', makeLeaf(partner, SENSOR, { usage: '' })],
      ['not valid yet', makeLeaf(partner, SENSOR, { startsInMs: DAY_MS })],
      ['expired', makeLeaf(partner, SENSOR, { startsInMs: -3 * DAY_MS })],
      ['of another CA of the same name', makeLeaf(await makeCa('Acme Root'), SENSOR)],
    ]
    for (const [what, leaf] of cases)
      assert.match(await told(await leaf), /^(handshake|CERTIFICATE_\w+)$/, what)
    const indirect = await makeLeaf(below, SENSOR)
    indirect.certificate += below.pem
    assert.equal(await told(indirect), 'CERTIFICATE_REFUSED', 'a CA that nobody has named')
    await apply(trusting(FIELDS, below))
    assert.equal(await told(await makeLeaf(below, SENSOR)), 'SERVICE_OFFLINE', 'and once it is named')
    assert.equal(await told(sensor), 'handshake', 'what is above it is not trusted for that')
  })

  it('ends live flows when the rule goes, and when another CA has its name', async () => {
    for (const end of [
      () => apply({ trustedClientCas: trusting(FIELDS).trustedClientCas }),
      async () => apply(trusting(FIELDS, await makeCa('Acme Root'))),
      () => apply({}),
    ]) {
      await apply(trusting(FIELDS))
      const { data } = await stage.attach(await stage.connectorCertificate(owner, service), { warm: 1 })
      const client = await stage.openFlow(service, sensor)
      const { body } = await data[0]!.control()
      data[0]!.end.send('ok', { flowId: body.flowId as string })
      await client.control()
      await end()
      assert.equal((await client.cut()).code, 'FLOW_REVOKED')
    }
  })

  it('takes back certificates by its list, and everybody when that is too old', async () => {
    const withCrl = (crl: string) => ({
      ...trusting(FIELDS),
      trustedClientCas: [{ name: 'acme', certificate: partner.pem, crl }],
    })
    await apply(withCrl(await makeCrl(partner, { serials: ['03'] })))
    assert.equal(await told(sensor), 'SERVICE_OFFLINE')
    const { data } = await stage.attach(await stage.connectorCertificate(owner, service), { warm: 1 })
    const client = await stage.openFlow(service, sensor)
    const { body } = await data[0]!.control()
    data[0]!.end.send('ok', { flowId: body.flowId as string })
    await client.control()
    await apply(withCrl(await makeCrl(partner, { serials: ['03', '02'] })))
    assert.equal((await client.cut()).code, 'CERTIFICATE_REVOKED')
    assert.equal(await told(sensor), 'CERTIFICATE_REVOKED')
    await apply(withCrl(await makeCrl(partner, { nextUpdate: Date.now() + 3_600_000 })))
    stage.clock.aheadMs = 3_500_000
    assert.equal(await told(sensor), 'SERVICE_OFFLINE')
    stage.clock.aheadMs = 3_700_000
    assert.equal(await told(sensor), 'TRUSTED_CRL_EXPIRED')
    stage.clock.aheadMs = 0
    const bad: [string, RegExp][] = [
      [await makeCrl(partner, { by: await makeCa('Acme Root') }), /not signed by its CA/],
      [await makeCrl(partner, { nextUpdate: Date.now() - 1_000 }), /its successor was due/],
      [partner.pem, /is not one list in PEM/],
    ]
    for (const [crl, message] of bad) assert.match((await put(withCrl(crl))).json.error.message, message)
  })

  it('is refused where a document cannot say it', async () => {
    const admin = await stage.person('admin@mycorp.com')
    const { revision } = (await stage.api('GET', '/v1/policy', { as: admin })).json
    const defaults = await stage.api('PUT', '/v1/policy', {
      as: admin,
      body: { revision, policy: trusting(FIELDS) },
    })
    assert.match(defaults.json.error.message, /trusted for one service, not for all/)
    const [ca] = trusting(FIELDS).trustedClientCas
    const bad: [object, RegExp][] = [
      [{ trustedClientCas: [{ ...ca, certificate: sensor.certificate }] }, /not one that it has signed/],
      [{ trustedClientCas: [{ ...ca, certificate: 'hello' }] }, /one certificate in PEM/],
      [{ trustedClientCas: [{ ...ca, certificate: partner.pem + partner.pem }] }, /one certificate in PEM/],
      [{ trustedClientCas: [ca, { ...ca, name: 'again' }] }, /must be there once/],
      [{ trustedClientCas: [{ ...ca, name: 'a:b' }] }, /lower-case letters/],
      [{ allow: trusting(FIELDS).allow }, /"acme" is no CA of trusted_client_cas/],
      [trusting([{ type: 'CN' }]), /must have equals or matches/],
      [trusting([{ type: 'CN', matches: '***' }]), /one \* or two/],
      [trusting([{ type: 'CN', matches: 'sensor' }]), /one \* or two/],
    ]
    for (const [policy, message] of bad) assert.match((await put(policy)).json.error.message, message)
  })
})

describe('a subject, as people read it', () => {
  it('is another one for every other subject', async () => {
    const rendered = async (name: Name) =>
      renderSubject(readSubject(new X509Certificate((await makeLeaf(partner, name)).certificate).raw))
    assert.equal(await rendered(SENSOR), 'C=DE,O=Acme\\2c Inc.,CN=sensor-7')
    assert.equal(await rendered([{ CN: [{ printableString: 'a+b=c' }] }]), 'CN:printable=a\\2bb\\3dc')
    assert.equal(await rendered([{ CN: [{ utf8String: ' a\\ ' }] }]), 'CN=\\20a\\5c\\20')
  })
})
