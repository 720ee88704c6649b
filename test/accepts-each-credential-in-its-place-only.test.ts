import assert from 'node:assert/strict'
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  X509Certificate,
} from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { SSH_HOST_JWS_TYPE, SSH_HOST_KEYS_JWS_TYPE } from '@postern/shared/api/ssh'
import { createCsr } from '@postern/shared/certs/csr'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { ALPN_DATA, ALPN_FLOW } from '@postern/shared/protocol/frames'
import { FormBrowser, readForm, signInWithoutScreen } from '../demo/dev-login.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { ConnectorPeer, readStoredConnectors } from './support/connector-peer.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import {
  authorizationUrl,
  callApi,
  hashOf,
  makePeerKey,
  makeProof,
  obtainCode,
  type PeerSession,
  peerKeyOf,
  requestEdge,
  requestTokens,
  signInByHand,
  signJws,
} from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { openStoreReader } from './support/store-reader.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { attempt, clientCertificateOf, forgeCertificate, type KeyAndCertificate } from './support/tls-peer.ts'
import { within } from './support/until.ts'

/** Every kind of credential at every place that takes one. A row of a table is a place, and says which kinds pass
 *  there; all the others are tried as well and must not. */

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let home: string
let certificates: Record<string, KeyAndCertificate>

before(async () => {
  edge = await startEdge({ config: { login: { device: 'on' } } })
  echo = await startEcho()
  home = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home, port: echo.port })
  const { code, stderr } = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: '' })
  assert.equal(code, 0, stderr)
  certificates = {
    client: clientCertificateOf(home, service.label),
    connector: storedConnector().identity,
    edge: forgeCertificate({
      ca: caFiles('edge'),
      subjectAltName: `DNS:${edge.domain},DNS:*.${edge.domain}`,
      usage: 'serverAuth',
    }),
    workload: await makeWorkload(),
    server: forgeCertificate({
      ca: caFiles('server'),
      subjectAltName: 'DNS:db.internal',
      usage: 'serverAuth',
    }),
    'client CA': caOf('client'),
    'connector CA': caOf('connector'),
    'edge CA': caOf('edge'),
    'workload CA': caOf('workload'),
    'server CA': caOf('server'),
  }
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** A program's certificate, and a rule that admits it. */
async function makeWorkload(): Promise<KeyAndCertificate> {
  const folder = makeTempFolder('workload')
  const out = path.join(folder, 'program')
  const policy = path.join(folder, 'policy.yaml')
  writeFileSync(policy, `service: ${service.label}\nallow: [{ workloads: [program] }]\n`)
  for (const args of [
    ['policy', 'apply', '-f', policy],
    ['certificate', 'issue', '--name', 'program', '--host', service.label, '--out', out],
  ]) {
    const { code, stderr } = await runPostern(args, { home })
    assert.equal(code, 0, stderr)
  }
  const read = (name: string) => readFileSync(path.join(out, name), 'utf8')
  return { key: read('key.pem'), cert: read('certificate.pem') }
}

const caFiles = (kind: string) => ({
  certificate: path.join(edge.dataDir, 'ca', `${kind}-ca.pem`),
  key: path.join(edge.dataDir, 'ca', `${kind}-ca.key`),
})
const caOf = (kind: string): KeyAndCertificate => ({
  cert: readFileSync(caFiles(kind).certificate, 'utf8'),
  key: readFileSync(caFiles(kind).key, 'utf8'),
})
const storedConnector = () => readStoredConnectors(home, service.label)[0]!
const namesOf = ({ cert }: KeyAndCertificate) =>
  new X509Certificate(cert).subjectAltName!.replaceAll(', ', ',')

/** `true` when the room answered as it does to its own people. */
async function isLetIn(room: string, identity: KeyAndCertificate): Promise<boolean> {
  const rooms: Record<string, Parameters<typeof attempt>[1]> = {
    'flow, framed': { serverName: service.host, alpn: ALPN_FLOW },
    'flow, plain': { serverName: service.host },
    mtls: { serverName: `mtls.${edge.domain}` },
    data: { serverName: edge.domain, alpn: ALPN_DATA },
  }
  const { bytes, code } = await within(`${room} closes`, attempt(edge, { ...rooms[room]!, identity }))
  if (room === 'mtls') return bytes.startsWith('HTTP/1.1 400')
  // a data connection begins with another frame, and is told so
  if (room === 'data') return code === 'PROTOCOL_INVALID'
  return bytes === 'hello'
}

const FLOW_ROOMS = ['flow, framed', 'flow, plain']

/** Whether the edge renews it, for whoever shows it. */
async function renewsItself({ key, cert }: KeyAndCertificate): Promise<boolean> {
  const { serverName, port } = { serverName: `mtls.${edge.domain}`, port: edge.port }
  const csr = createCsr(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const ca = readFileSync(edge.caFile)
  const to = { host: '127.0.0.1', port, servername: serverName, ca, key, cert, agent: false }
  const headers = { host: `${serverName}:${port}` }
  const request = https.request({ ...to, method: 'POST', path: '/v1/certificates/renew', headers })
  return new Promise((resolve) => {
    request.on('response', (response) => resolve(response.resume().statusCode === 201))
    request.on('error', () => resolve(false))
    request.end(csr)
  })
}

/** Whether the edge takes it as a connector. */
async function attaches(identity: KeyAndCertificate): Promise<boolean> {
  using peer = new ConnectorPeer(edge, identity)
  const first = new Promise<string>((resolve) => {
    peer.ws.once('message', (data) => resolve(JSON.parse(String(data)).type))
    peer.ws.once('close', () => resolve('closed'))
    peer.ws.once('error', () => resolve('closed'))
  })
  return (await within('the edge answers', first)) === 'attached'
}

/** Puts a certificate into the store that the edge has never issued, beside a real one and with its row. */
async function makeKnown({ cert }: KeyAndCertificate, real: KeyAndCertificate): Promise<void> {
  const { serialNumber, publicKey } = new X509Certificate(cert)
  const keyHash = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')
  const kept =
    'kind, identity_id, session_id, service_id, connector_id, machine, not_before, not_after, issued_at, workload_id, workload, renewable_until'
  await using store = await openStoreReader(edge, { mayWrite: true })
  await store.rows(
    `insert into certificates (serial, key_hash, ${kept})
       select '${serialNumber.toLowerCase()}', '${keyHash}', ${kept}
       from certificates where serial = '${serialOf(real)}'`,
  )
}

const serialOf = ({ cert }: KeyAndCertificate) => new X509Certificate(cert).serialNumber.toLowerCase()

describe('certificates', () => {
  const places: [room: string, passes: string[]][] = [
    ['flow, framed', ['client', 'workload']],
    ['flow, plain', ['client', 'workload']],
    ['mtls', ['connector', 'workload']],
    ['data', ['connector']],
  ]
  for (const [room, passes] of places) {
    test(`the room ${room} takes a certificate of the kind ${passes.join(' or ')} and no other`, async () => {
      for (const [kind, identity] of Object.entries(certificates)) {
        assert.equal(await isLetIn(room, identity), passes.includes(kind), `${kind} at ${room}`)
      }
    })
  }

  test('in the room of connectors and programs, one attaches, the other renews itself, and no other does', async () => {
    const spare = await connectService({ home, port: echo.port, name: 'attaches' })
    const { identity: connector } = readStoredConnectors(home, spare.label)[0]!
    assert.equal(await spare.stop(), 0)
    const workload = await makeWorkload()
    for (const [kind, identity] of Object.entries({ ...certificates, connector, workload })) {
      assert.equal(await attaches(identity), kind === 'connector', `${kind} attaches`)
      assert.equal(await renewsItself(identity), kind === 'workload', `${kind} renews itself`)
    }
  })

  test('a leaf brings its own intermediate along in vain', async () => {
    for (const kind of ['connector', 'edge', 'server']) {
      const leaf = certificates[kind]!
      const withCa = { ...leaf, cert: leaf.cert + certificates[`${kind} CA`]!.cert }
      assert.equal(await isLetIn('flow, framed', withCa), false)
    }
    const { client } = certificates
    const withCa = { ...client!, cert: client!.cert + certificates['client CA']!.cert }
    for (const room of ['mtls', 'data']) assert.equal(await isLetIn(room, withCa), false)
    const { workload } = certificates
    const program = { ...workload!, cert: workload!.cert + certificates['workload CA']!.cert }
    assert.equal(await isLetIn('data', program), false)
  })

  test('signed with the key of the client CA, right in all its parts, but not issued: refused', async () => {
    const seen = echo.connections.length
    const forged = forgeCertificate({ ca: caFiles('client'), subjectAltName: namesOf(certificates.client!) })
    for (const room of FLOW_ROOMS) assert.equal(await isLetIn(room, forged), false)
    await makeKnown(forged, certificates.client!)
    // so nothing but what is wrong with the ones below refuses them
    for (const room of FLOW_ROOMS) assert.equal(await isLetIn(room, forged), true)
    assert.equal(echo.connections.length, seen + FLOW_ROOMS.length)
  })

  type Forgery = Omit<Parameters<typeof forgeCertificate>[0], 'ca'>
  const odd: [what: string, Omit<Forgery, 'subjectAltName'>][] = [
    ['expired', { days: -1 }],
    ['not yet valid', { startsInDays: 1, days: 2 }],
    ['without a use', { usage: '' }],
    ['for any use', { usage: 'anyExtendedKeyUsage' }],
    ['for another use', { usage: 'serverAuth' }],
    ['for two uses', { usage: 'clientAuth,serverAuth' }],
  ]
  const clientNames = () => namesOf(certificates.client!)
  const oddNames: [what: string, () => string][] = [
    ['for two services', () => `${clientNames()},${/URI:[^,]+/.exec(clientNames())![0]}x`],
    ['for another service', () => `${clientNames()}x`],
    ['with two addresses', () => `${clientNames()},email:eve@evil.com`],
    ['with another address', () => clientNames().replace('operator@', 'eve@')],
    ['with a NUL in the address', () => derNames('operator@mycorp.com\0.evil.com')],
    ['with a cyrillic о in the address', () => derNames('оperator@mycorp.com')],
    ['with a comma that pretends to be two names', () => derNames('x@y.z, URI:postern://')],
  ]
  const clientForgeries: [string, () => Forgery][] = [
    ...odd.map(([what, more]): [string, () => Forgery] => [
      what,
      () => ({ subjectAltName: clientNames(), ...more }),
    ]),
    ...oddNames.map(([what, names]): [string, () => Forgery] => [what, () => ({ subjectAltName: names() })]),
  ]
  for (const [what, options] of clientForgeries) {
    test(`signed with the key of the client CA and known to the store, ${what}: refused`, async () => {
      const seen = echo.connections.length
      const forged = forgeCertificate({ ca: caFiles('client'), ...options() })
      await makeKnown(forged, certificates.client!)
      for (const room of FLOW_ROOMS) assert.equal(await isLetIn(room, forged), false)
      assert.equal(echo.connections.length, seen)
    })
  }

  test('the same of programs: only the one that is right in all its parts is let in', async () => {
    const names = namesOf(certificates.workload!)
    const forge = (more: Partial<Forgery> = {}) =>
      forgeCertificate({ ca: caFiles('workload'), subjectAltName: names, ...more })
    assert.equal(await isLetIn('flow, plain', forge()), false, 'not issued')
    for (const [what, options] of [
      ...odd,
      ['for two programs', { subjectAltName: `${names},${names}x` }],
      ['for another program', { subjectAltName: `${names}x` }],
      ['of a person', { subjectAltName: clientNames() }],
      ['with an address', { subjectAltName: `${names},email:operator@mycorp.com` }],
    ] as [string, Partial<Forgery>][]) {
      const forged = forge(options)
      await makeKnown(forged, certificates.workload!)
      assert.equal(await isLetIn('flow, plain', forged), false, what)
    }
    const right = forge()
    await makeKnown(right, certificates.workload!)
    assert.equal(await isLetIn('flow, plain', right), true)
    // each kind under the CA of the other, with a row of either
    for (const [ca, real] of [
      ['client', certificates.workload!],
      ['workload', certificates.client!],
      ['connector', certificates.workload!],
      ['server', certificates.workload!],
      ['server', certificates.client!],
    ] as const) {
      const forged = forgeCertificate({ ca: caFiles(ca), subjectAltName: namesOf(real) })
      await makeKnown(forged, real)
      assert.equal(await isLetIn('flow, plain', forged), false, `${ca} CA`)
      assert.equal(await renewsItself(forged), false, `${ca} CA, renewal`)
    }
  })

  test('the same of connectors: only the one that is right in all its parts attaches', async () => {
    const spare = await connectService({ home, port: echo.port, name: 'spare' })
    const { identity } = readStoredConnectors(home, spare.label)[0]!
    assert.equal(await spare.stop(), 0)
    const names = namesOf(identity)
    const forge = (more: Partial<Forgery> = {}) =>
      forgeCertificate({ ca: caFiles('connector'), subjectAltName: names, ...more })
    assert.equal(await attaches(forge()), false, 'not issued')
    for (const [what, options] of [
      ...odd,
      ['for two connectors', { subjectAltName: `${names},${names}x` }],
      ['for another connector', { subjectAltName: `${names}x` }],
    ] as [string, Partial<Forgery>][]) {
      const forged = forge(options)
      await makeKnown(forged, identity)
      assert.equal(await attaches(forged), false, what)
    }
    const right = forge()
    await makeKnown(right, identity)
    assert.equal(await attaches(right), true)
    assert.equal(await attaches(identity), true)
  })

  test('with one altered byte: refused', async () => {
    const { cert, key } = certificates.client!
    const der = new X509Certificate(cert).raw
    for (const at of [der.length - 4, Math.floor(der.length / 2)]) {
      const altered = Buffer.from(der)
      altered[at]! ^= 1
      const body = altered.toString('base64').replace(/.{64}/g, '$&\n')
      const pem = `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`
      // what OpenSSL does not even load cannot be shown
      const isShown = await isLetIn('flow, framed', { cert: pem, key }).catch(() => false)
      assert.equal(isShown, false)
    }
  })
})

/** A subjectAltName in DER, for addresses that openssl's configuration cannot spell. */
function derNames(email: string): string {
  const uri = /URI:([^,]+)/.exec(namesOf(certificates.client!))![1]!
  const field = (tag: number, content: Buffer) => {
    const length = content.length < 128 ? [content.length] : [0x81, content.length]
    return Buffer.concat([Buffer.from([tag, ...length]), content])
  }
  const names = field(0x30, Buffer.concat([field(0x81, Buffer.from(email)), field(0x86, Buffer.from(uri))]))
  return `DER:${names.toString('hex')}`
}

describe('tokens', () => {
  let session: PeerSession
  let admin: PeerSession
  /** Fresh at every call: some may be used once. */
  let kinds: Record<string, () => Promise<string> | string>

  const sshKey = formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))

  /** What a connector says with the key of its certificate. */
  function signAsConnector(typ: string, said: object): string {
    const { identity, serial } = storedConnector()
    const key = createPrivateKey(identity.key)
    const claims = {
      aud: edge.origin,
      iat: Math.floor(Date.now() / 1_000),
      jti: hashOf(String(Math.random())),
      serial,
      ...said,
    }
    return signJws(peerKeyOf(key, createPublicKey(key)), { typ }, claims)
  }
  const renewal = () => {
    const csr = createCsr(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
    return signAsConnector('postern-renew+jwt', { csr })
  }
  const sshHost = () => signAsConnector(SSH_HOST_JWS_TYPE, { hostKeys: [sshKey] })
  const sshHostKeys = () => signAsConnector(SSH_HOST_KEYS_JWS_TYPE, { hostKeys: [sshKey] })
  const sendJws = (place: string, jws: string) =>
    requestEdge(edge, { path: `/v1/connectors/${place}`, body: { jws } })

  async function issueSshCertificates(): Promise<{ user: string; host: string }> {
    const body = { host: service.host, publicKey: sshKey }
    const user = await callApi(edge, admin.key, admin.accessToken, '/v1/certificates/ssh', body)
    const host = await sendJws('ssh-host-certificates', sshHost())
    return { user: user.json?.certificate as string, host: host.json?.certificates?.[0] as string }
  }

  before(async () => {
    session = await signInByHand(edge, 'ann@mycorp.com')
    admin = await signInByHand(edge, 'operator@mycorp.com')
    const ssh = await issueSshCertificates()
    assert.match(`${ssh.user} ${ssh.host}`, /^ssh-ed25519-cert\S* \S+ ssh-ed25519-cert/)
    kinds = {
      'access token': () => session.accessToken,
      'refresh token': () => session.refreshToken,
      'ID token': () => session.idToken,
      code: async () => (await obtainCode(edge, session.key, 'ann@mycorp.com')).code,
      'login cookie': async () => (await atConfirmation()).cookie,
      'DPoP proof': () =>
        makeProof(edge, session.key, { method: 'GET', path: '/v1/session', token: session.accessToken }),
      'user code': async () => (await askForCode()).userCode,
      'device code': async () => (await askForCode({ approved: true })).deviceCode,
      renewal,
      'request for ssh host certificates': sshHost,
      'report of ssh host keys': sshHostKeys,
      'ssh user certificate': () => ssh.user,
      'ssh host certificate': () => ssh.host,
      'enroll token': async () => {
        const path = `/v1/services/${service.label}/enroll-tokens`
        return (await callApi(edge, admin.key, admin.accessToken, path, {})).json?.token as string
      },
      'client certificate': () => certificates.client!.cert,
      'connector certificate': () => certificates.connector!.cert,
      'workload certificate': () => certificates.workload!.cert,
      nothing: () => '',
    }
  })

  /** What a program without a browser gets; approved, its next question is answered with tokens. */
  async function askForCode({ approved = false } = {}) {
    const body = new URLSearchParams({
      client_id: 'postern-cli',
      scope: 'openid email offline_access',
      dpop_jkt: session.key.thumbprint,
    })
    const { status, json } = await requestEdge(edge, { path: '/oauth/device/authorize', body })
    assert.equal(status, 200, JSON.stringify(json))
    const userCode: string = json.user_code
    if (approved) {
      const person = { email: 'ann@mycorp.com', caFile: edge.caFile, userCode }
      await signInWithoutScreen(`${edge.origin}/device`, person)
    }
    return { deviceCode: json.device_code as string, userCode }
  }

  /** A browser at the page with the one button. */
  async function atConfirmation() {
    const browser = new FormBrowser({ caFile: edge.caFile, stopAt: (url) => url.protocol === 'http:' })
    const url = authorizationUrl(edge, {
      code_challenge: hashOf('v'.repeat(43)),
      dpop_jkt: makePeerKey().thumbprint,
    })
    const signIn = await browser.open(new URL(url))
    const page = await browser.submit(signIn, readForm(signIn.html)!, 'ann@mycorp.com')
    const cookies = browser.cookiesOf(edge.domain)
    const name = [...cookies.keys()].find((key) => key.startsWith('__Host-postern-login-'))!
    return { browser, page, name, cookie: cookies.get(name)! }
  }

  const header = (value: string) => value.replaceAll(/\s+/g, '')
  async function isLive(token: string): Promise<boolean> {
    const body = new URLSearchParams({ client_id: 'postern-cli', token })
    return (await requestEdge(edge, { path: '/oauth/introspect', body })).json?.active === true
  }

  const places: [place: string, passes: string[], accepts: (value: string) => Promise<boolean>][] = [
    [
      'API with session',
      ['access token'],
      async (value) => (await callApi(edge, session.key, header(value), '/v1/session')).status === 200,
    ],
    [
      'API with session, as Bearer',
      [],
      async (value) => {
        const headers = { authorization: `Bearer ${header(value)}` }
        return (await requestEdge(edge, { path: '/v1/session', headers })).status === 200
      },
    ],
    [
      'API of administrators, with what a person without that role has',
      [],
      async (value) => (await callApi(edge, session.key, header(value), '/v1/audit')).status === 200,
    ],
    [
      'refresh',
      ['refresh token'],
      async (value) => {
        const parameters = { grant_type: 'refresh_token', refresh_token: value }
        return (await requestTokens(edge, session.key, parameters)).status === 200
      },
    ],
    [
      'tokens for a program without a browser',
      ['device code'],
      async (value) => {
        const parameters = { grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: value }
        return (await requestTokens(edge, session.key, parameters)).status === 200
      },
    ],
    ['introspection', ['access token', 'refresh token'], isLive],
    [
      'host certificates for ssh',
      ['request for ssh host certificates'],
      async (value) => (await sendJws('ssh-host-certificates', value)).status < 300,
    ],
    [
      'report of host keys of ssh',
      ['report of ssh host keys'],
      async (value) => (await sendJws('ssh-host-keys', value)).status < 300,
    ],
    [
      'a key for ssh, to be certified',
      [],
      async (value) => {
        const body = { host: service.host, publicKey: value }
        const answer = await callApi(edge, admin.key, admin.accessToken, '/v1/certificates/ssh', body)
        return answer.status < 300
      },
    ],
    // after the places that ask for the current certificate: this makes it a former one
    [
      'renewal of a connector certificate',
      ['renewal'],
      async (value) => {
        const answer = await requestEdge(edge, { path: '/v1/connectors/renew', body: { jws: value } })
        return answer.status === 201
      },
    ],
    [
      'enrolment of a server',
      ['enroll token'],
      async (token) => {
        const csr = createCsr(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
        const body = { token, csr, machine: 'test', name: 'db' }
        return (await requestEdge(edge, { path: '/v1/connectors/enroll', body })).status === 201
      },
    ],
  ]

  for (const [place, passes, accepts] of places) {
    test(`${place}: ${passes.join(' and ') || 'nothing'} and nothing else`, async () => {
      for (const [kind, make] of Object.entries(kinds)) {
        const value = await make()
        assert.equal(await accepts(value), passes.includes(kind), `${kind} at ${place}`)
      }
      assert.equal((await callApi(edge, session.key, session.accessToken, '/v1/session')).status, 200)
    })
  }

  test('the button of the sign-in page: the cookie of this very login and nothing else', async () => {
    const press = async (value?: string) => {
      const { browser, page, name } = await atConfirmation()
      if (value !== undefined) browser.plant(edge.domain, name, header(value))
      return (await browser.submit(page, readForm(page.html)!, '')).url.searchParams.has('code')
    }
    assert.equal(await press(), true)
    // among them the cookie of another login
    for (const [kind, make] of Object.entries(kinds)) assert.equal(await press(await make()), false, kind)
  })

  test('exchange of a code: the code, with its verifier and its key, and nothing else', async () => {
    for (const [kind, make] of Object.entries(kinds)) {
      const right = await obtainCode(edge, session.key, 'ann@mycorp.com')
      if (kind !== 'code') right.code = await make()
      const { status } = await requestTokens(edge, session.key, right)
      assert.equal(status === 200, kind === 'code', kind)
    }
  })

  test('revocation: a refresh or access token ends its session, anything else ends nothing', async () => {
    const revoke = (token: string) => {
      const body = new URLSearchParams({ client_id: 'postern-cli', token })
      return requestEdge(edge, { path: '/oauth/revoke', body })
    }
    for (const [kind, make] of Object.entries(kinds)) {
      if (kind === 'access token' || kind === 'refresh token') continue
      await revoke(await make())
      assert.equal(await isLive(session.refreshToken), true, kind)
    }
    const other = await signInByHand(edge, 'ann@mycorp.com')
    await revoke(other.refreshToken)
    assert.equal(await isLive(other.accessToken), false)
    assert.equal(await isLive(session.accessToken), true)
  })

  test('an enroll token works once, and with a session beside it no more than without', async () => {
    const token = await kinds['enroll token']!()
    assert.match(token, /^postern_enroll_/)
    const [, , enrolls] = places.find(([place]) => place === 'enrolment of a server')!
    assert.deepEqual([await enrolls(token), await enrolls(token)], [true, false])
    const body = { token: '', csr: '', machine: 'test', name: 'db' }
    const csr = createCsr(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
    const answer = await callApi(edge, admin.key, admin.accessToken, '/v1/connectors/enroll', {
      ...body,
      csr,
    })
    assert.equal(answer.status, 403)
  })

  test('an approved device code with another key than it was given to: nothing', async () => {
    const { deviceCode } = await askForCode({ approved: true })
    const parameters = { grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: deviceCode }
    const { status, json } = await requestTokens(edge, admin.key, parameters)
    assert.equal(status, 400)
    assert.equal(json.error, 'invalid_grant')
  })

  test('a token of another session, with the wrong key: nowhere', async () => {
    assert.equal((await callApi(edge, admin.key, admin.accessToken, '/v1/audit')).status, 200)
    assert.equal((await callApi(edge, session.key, admin.accessToken, '/v1/audit')).status, 401)
    const parameters = { grant_type: 'refresh_token', refresh_token: admin.refreshToken }
    assert.equal((await requestTokens(edge, session.key, parameters)).status, 400)
  })

  // the last one: after ten wrong codes from an address none is looked at
  test('the page that asks for a code: a user code and nothing else', async () => {
    const type = async (value: string) => {
      const browser = new FormBrowser({ caFile: edge.caFile })
      const page = await browser.open(new URL('/device', edge.origin))
      const form = readForm(page.html)!
      form.fields.set('user_code', value)
      const next = await browser.submit(page, form, '')
      return next.status === 200 && readForm(next.html)?.accountField !== undefined
    }
    assert.equal(await type(await kinds['user code']!()), true)
    const others = Object.entries(kinds).filter(([kind]) => kind !== 'user code')
    for (const [kind, make] of others) assert.equal(await type(await make()), false, kind)
  })
})
