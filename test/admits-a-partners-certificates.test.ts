import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { attempt, dial, type KeyAndCertificate } from './support/tls-peer.ts'
import { AT_ONCE_MS, within } from './support/until.ts'

/** A partner who has Easy-RSA, as Debian ships it: its certificates open one service, to whom a rule names. */

const folder = makeTempFolder('partner')
let edge: EdgeProcess
let echo: TcpService
let operator: string
let service: ConnectedService
let other: ConnectedService
let partner: EasyRsa

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: echo.port })
  other = await connectService({ home: operator, port: echo.port, name: 'other' })
  partner = await EasyRsa.create('partner')
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await other?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** One CA in a folder of its own. */
class EasyRsa {
  readonly #folder: string

  constructor(folder_: string) {
    this.#folder = folder_
  }

  static async create(name: string): Promise<EasyRsa> {
    const place = path.join(folder, name)
    const made = await new Program('make-cadir', [place]).ended
    assert.equal(made.code, 0, made.stderr)
    const ca = new EasyRsa(place)
    await ca.run(['init-pki'])
    await ca.run(['build-ca', 'nopass'], { EASYRSA_REQ_CN: 'Acme CA' })
    return ca
  }

  async run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
    const fields = {
      ...{
        EASYRSA_DN: 'org',
        EASYRSA_REQ_COUNTRY: 'DE',
        EASYRSA_REQ_PROVINCE: 'Berlin',
        EASYRSA_REQ_CITY: 'Berlin',
      },
      // an address of ours, in a certificate of theirs
      ...{ EASYRSA_REQ_ORG: 'Acme', EASYRSA_REQ_OU: 'Sensors', EASYRSA_REQ_EMAIL: 'operator@mycorp.com' },
    }
    const program = new Program('./easyrsa', args, {
      cwd: this.#folder,
      env: { PATH: process.env.PATH, EASYRSA_BATCH: '1', ...fields, ...env },
      stdin: '',
    })
    const { code, stdout, stderr } = await program.ended
    assert.equal(code, 0, stdout + stderr)
  }

  async client(name: string, env?: NodeJS.ProcessEnv): Promise<KeyAndCertificate> {
    await this.run(['build-client-full', name, 'nopass'], env)
    return { key: this.read(`private/${name}.key`), cert: this.read(`issued/${name}.crt`) }
  }

  read(file: string): string {
    return readFileSync(this.fileOf(file), 'utf8')
  }

  fileOf(file: string): string {
    return path.join(this.#folder, 'pki', file)
  }
}

async function apply(label: string, lines: readonly string[]): Promise<void> {
  const file = path.join(folder, 'policy.yaml')
  writeFileSync(file, [`service: ${label}`, ...lines, ''].join('\n'))
  const { code, stderr } = await runPostern(['policy', 'apply', '-f', file], { home: operator })
  assert.equal(code, 0, stderr)
}

const block = (key: string, pem: string) => [
  `    ${key}: |`,
  ...pem
    .trim()
    .split('\n')
    .map((line) => `      ${line}`),
]
const trust = () => ['trusted_client_cas:', '  - name: acme', ...block('certificate', partner.read('ca.crt'))]
const rule = (name: string) => [
  'allow:',
  '  - subjects:',
  '      - ca: acme',
  '        fields:',
  '          - { type: C, equals: DE }',
  '          - { type: ST, equals: Berlin }',
  '          - { type: L, equals: Berlin }',
  '          - { type: O, equals: Acme }',
  '          - { type: OU, equals: Sensors }',
  `          - { type: CN, ${name} }`,
  '          - { type: emailAddress, equals: operator@mycorp.com }',
]

async function reaches(identity: KeyAndCertificate, at = service): Promise<boolean> {
  const seen = echo.connections.length
  const { bytes } = await within('it ends', attempt(edge, { serverName: at.host, identity }))
  const isLetIn = bytes === 'hello'
  assert.equal(echo.connections.length - seen, isLetIn ? 1 : 0, 'the service hears of nobody else')
  return isLetIn
}

test('a certificate of Easy-RSA opens the one service whose rule names it, and its look-alikes none', async () => {
  const sensor = await partner.client('sensor-7')
  assert.equal(await reaches(sensor), false, 'nobody has trusted this CA')
  await apply(service.label, [...trust(), ...rule("matches: 'sensor-*'")])
  assert.equal(await reaches(sensor), true)
  assert.equal(await reaches(sensor, other), false)
  for (const [name, env] of [
    ['probe-7', {}],
    ['sensor-8', { EASYRSA_REQ_OU: 'Sensors, CN=sensor-7' }],
    ['sensor-9', { EASYRSA_REQ_ORG: 'Acme2' }],
    ['sensor-10', { EASYRSA_DN: 'cn_only' }],
    ['sensor-11', { EASYRSA_REQ_EMAIL: 'eve@mycorp.com' }],
  ] as const) {
    assert.equal(await reaches(await partner.client(name, env)), false, name)
  }
  const stranger = await EasyRsa.create('stranger')
  assert.equal(await reaches(await stranger.client('sensor-7')), false, 'the same names under another CA')

  const { stdout } = await runPostern(['audit', 'list', '--json', '--type', 'flow.decided'], {
    home: operator,
  })
  const lines = stdout.trim().split('\n')
  const records = lines.map((line) => JSON.parse(line) as { decision: string; email: string })
  const names = new Set(records.filter(({ decision }) => decision === 'allow').map(({ email }) => email))
  const subject = 'C=DE,ST=Berlin,L=Berlin,O=Acme,OU=Sensors,CN=sensor-7,emailAddress=operator\\40mycorp.com'
  assert.deepEqual([...names], [`x509:acme:${subject}`])
})

test('a policy is read back as it was written, and a flow ends when its rule goes', async () => {
  await apply(service.label, [...trust(), ...rule('equals: sensor-20')])
  const got = await runPostern(['policy', 'get', service.label], { home: operator })
  assert.match(got.stdout, /trusted_client_cas:\n {2}- name: acme\n {4}certificate: \|/)
  const file = path.join(folder, 'again.yaml')
  writeFileSync(file, got.stdout)
  const again = await runPostern(['policy', 'apply', '-f', file], { home: operator })
  assert.equal(again.code, 0, again.stderr)

  const live = dial(edge, { serverName: service.host, identity: await partner.client('sensor-20') })
  const closed = new Promise<void>((resolve) => live.once('close', () => resolve()))
  live.on('error', () => {})
  const heard = new Promise<string>((resolve) => live.once('data', (bytes) => resolve(String(bytes))))
  live.write('hello')
  assert.equal(await within('the service answers', heard), 'hello')
  await apply(service.label, trust())
  await within('the flow ends', closed, AT_ONCE_MS)
})

test('whom the CA has revoked stays out by its list', async () => {
  const sensors = [await partner.client('sensor-30'), await partner.client('sensor-31')] as const
  await partner.run(['revoke', 'sensor-31'])
  await partner.run(['gen-crl'])
  const rules = rule("matches: 'sensor-*'")
  await apply(service.label, [...trust(), ...rules])
  assert.equal(await reaches(sensors[1]), true, 'nobody has said so here')
  await apply(service.label, [...trust(), ...block('crl', partner.read('crl.pem')), ...rules])
  assert.deepEqual([await reaches(sensors[0]), await reaches(sensors[1])], [true, false])
})

async function update(args: readonly string[]) {
  return runPostern(['service', 'update', service.label, ...args], { home: operator })
}

async function shown(): Promise<{ trustedClientCas: { name: string; crl?: string }[]; subjects: object[] }> {
  const { stdout } = await runPostern(['service', 'show', service.label, '--json'], { home: operator })
  return JSON.parse(stdout)
}

test('options of service update trust the CA and name whom of it they mean; one bad entry changes nothing', async () => {
  const hours = ['require:', '  source_networks: [127.0.0.0/8, "::1"]']
  await apply(service.label, hours)
  const sensor = await partner.client('sensor-40')
  const probe = await partner.client('probe-40')
  const ca = partner.fileOf('ca.crt')
  const subject = (name: string) =>
    `acme:C=DE,ST=Berlin,L=Berlin,O=Acme,OU=Sensors,CN=${name},emailAddress=operator@mycorp.com`
  const foreignKey = partner.fileOf('private/sensor-40.key')
  const leaf = path.join(folder, 'leaf.pem')
  writeFileSync(leaf, sensor.cert)
  const two = path.join(folder, 'two.pem')
  writeFileSync(two, partner.read('ca.crt') + partner.read('ca.crt'))

  const bad: [string[], RegExp][] = [
    [['--trusted-client-ca', `b2=${leaf}`], /b2: .* not one of a CA/],
    [['--trusted-client-ca', `b2=${foreignKey}`], /b2: .* private key/],
    [['--trusted-client-ca', `b2=${two}`], /b2: .* 2 certificates/],
    [['--trusted-client-ca', `b2=${ca}.gone`], /b2: .*no such file/],
    [['--trusted-client-ca', ca], /a name and a file/],
    [['--trusted-client-ca', `Acme=${ca}`], /"Acme" is no name/],
    [['--trusted-client-ca', `acme=${ca}`], /acme is there twice/],
    [['--trusted-client-crl', `b2=${ca}`], /b2: .* no list/],
    [['--remove-trusted-client-ca', 'b2'], /does not have a CA "b2"/],
    [['--remove-subject', subject('nobody')], /does not have a subject acme:.*CN=nobody/],
    [['--allow-subject', 'b2:CN=x'], /b2:CN=x names a CA that the service does not trust/],
    [['--allow-subject', 'acme:XX=x'], /XX is none of/],
    [['--allow-subject', 'acme:CN=*a*b*'], /POLICY_INVALID/], // that one only the edge knows
    [['--name', 'other'], /by themselves/],
  ]
  for (const [args, problem] of bad) {
    const refused = await update([
      '--trusted-client-ca',
      `acme=${ca}`,
      '--allow-subject',
      subject('sensor-*'),
      ...args,
    ])
    assert.deepEqual([refused.code, problem.test(refused.stderr)], [2, true], refused.stderr)
    assert.doesNotMatch(refused.stderr, /PRIVATE KEY/)
  }
  assert.deepEqual(await shown().then(({ trustedClientCas, subjects }) => [trustedClientCas, subjects]), [
    [],
    [],
  ])
  assert.equal(await reaches(sensor), false)

  const done = await update(['--trusted-client-ca', `acme=${ca}`, '--allow-subject', subject('sensor-*')])
  assert.equal(done.code, 0, done.stderr)
  assert.deepEqual([await reaches(sensor), await reaches(probe)], [true, false])
  const text = await runPostern(['service', 'show', service.label], { home: operator })
  assert.match(text.stdout, /^ {2}trusts {6}acme until .*: sha256:[0-9a-f]{64}$/m)
  assert.match(
    text.stdout,
    /^ {2}subject {5}acme:C=DE,.*,CN=sensor-\*,emailAddress=operator\\40mycorp\.com$/m,
  )
  const kept = await runPostern(['policy', 'get', service.label], { home: operator })
  assert.match(kept.stdout, /source_networks/, 'the rest of the policy stays')

  // as it stands in the log
  const more = await update(['--allow-subject', `x509:${subject('probe-40').replace('@', '\\40')}`])
  assert.equal(more.code, 0, more.stderr)
  assert.equal(await reaches(probe), true)
  const less = await update(['--remove-subject', subject('probe-40')])
  assert.equal(less.code, 0, less.stderr)
  assert.deepEqual([await reaches(sensor), await reaches(probe)], [true, false])

  await partner.run(['revoke', 'sensor-40'])
  await partner.run(['gen-crl'])
  const crl = path.join(folder, 'crl.der')
  const converted = await new Program(
    'openssl',
    ['crl', '-in', partner.fileOf('crl.pem'), '-outform', 'DER', '-out', crl],
    {},
  ).ended
  assert.equal(converted.code, 0, converted.stderr)
  const listed = await update(['--trusted-client-crl', `acme=${crl}`])
  assert.equal(listed.code, 0, listed.stderr)
  assert.equal(await reaches(sensor), false)

  const orphaned = await update(['--remove-trusted-client-ca', 'acme'])
  assert.deepEqual([orphaned.code, /names a CA/.test(orphaned.stderr)], [2, true], orphaned.stderr)
  const gone = await update(['--remove-trusted-client-ca', 'acme', '--remove-subject', subject('sensor-*')])
  assert.equal(gone.code, 0, gone.stderr)
  assert.deepEqual((await shown()).trustedClientCas, [])
})
