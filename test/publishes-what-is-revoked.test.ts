import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { HeldFlow } from './support/held-flow.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf, type KeyAndCertificate } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** The edge's list of revoked certificates, as OpenSSL reads it, and what the edge itself does without one. */

let edge: EdgeProcess
let echo: TcpService
let operator: string
const folder = makeTempFolder('crl')

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const file = (name: string) => path.join(folder, name)
const caOf = (kind: string) => path.join(edge.dataDir, 'ca', `${kind}-ca.pem`)
const openssl = (...args: string[]) => spawnSync('openssl', args, { encoding: 'utf8' })
const ca = (...args: string[]) => runPosternEdge(edge, ['ca', 'crl', ...args])

/** With curl, as whoever needs it would. */
function fetchCrl(name: string): string {
  const at = ['--cacert', edge.caFile, '--connect-to', `${edge.domain}::127.0.0.1:${edge.port}`]
  const target = file(name)
  const fetched = spawnSync('curl', ['-sS', '--fail', ...at, `${edge.origin}/v1/crl/${name}`, '-o', target])
  assert.equal(fetched.status, 0, fetched.stderr.toString())
  return target
}

function verify(certificate: string, crl: string, kind = 'client') {
  const named = file('certificate.pem')
  writeFileSync(named, certificate)
  return openssl('verify', '-crl_check', '-x509_strict', '-CAfile', caOf(kind), '-CRLfile', crl, named)
}

async function obtain(home: string, host: string, label: string): Promise<KeyAndCertificate> {
  const { code, stderr } = await runPostern(['client', 'tls', '--host', host], { home, stdin: '' })
  assert.equal(code, 0, stderr)
  return clientCertificateOf(home, label)
}

test('a revoked certificate is refused at once, its live flow ends, and OpenSSL finds it on the list', async () => {
  await using service = await connectService({ home: operator, port: echo.port })
  const ann = await makePerson(edge, 'ann@mycorp.com')
  const [hers, mine] = [
    await obtain(ann, service.host, service.label),
    await obtain(operator, service.host, service.label),
  ]
  const before = verify(hers.cert, fetchCrl('client.pem'))
  assert.equal(before.status, 0, before.stderr)

  using live = new HeldFlow(edge, service.host, hers)
  await live.echo('before')
  const { serialNumber } = new X509Certificate(hers.cert)
  const revoked = await runPostern(['revoke', '--certificate', serialNumber.toLowerCase(), '--batch'], {
    home: operator,
  })
  assert.equal(revoked.code, 0, revoked.stderr)
  const ended = until('the end of the live flow', () =>
    live.echo('after').then(
      () => false,
      () => true,
    ),
  )
  await within('the end of the live flow', ended)
  using late = new HeldFlow(edge, service.host, hers)
  await assert.rejects(within('an answer', late.echo('x')), { code: 'CERTIFICATE_REVOKED' })
  using untouched = new HeldFlow(edge, service.host, mine)
  await untouched.echo('mine')

  const listed = await until('its serial on the list', () => {
    const { status, stderr } = verify(hers.cert, fetchCrl('client.pem'))
    return status === 2 && stderr
  })
  assert.match(listed, /certificate revoked/)
  const other = verify(mine.cert, file('client.pem'))
  assert.equal(other.status, 0, other.stderr)

  const shown = await runPosternEdge(edge, ['ca', 'list', '--kind', 'client', '--json'])
  const rows: { serial: string; revokedAt?: number }[] = JSON.parse(shown.stdout).certificates
  const revokedAt = (serial: string) => rows.find((row) => row.serial === serial.toLowerCase())!.revokedAt
  assert.equal(typeof revokedAt(serialNumber), 'number')
  assert.equal(revokedAt(new X509Certificate(mine.cert).serialNumber), undefined)
  const lines = (await runPosternEdge(edge, ['ca', 'list', '--kind', 'client'])).stdout.split('\n')
  assert.match(
    lines.find((line) => line.startsWith(serialNumber.toLowerCase()))!,
    / {2}ann@mycorp\.com {2}revoked /,
  )

  const der = openssl(
    'crl',
    '-inform',
    'DER',
    '-in',
    fetchCrl('client.crl'),
    '-CAfile',
    caOf('client'),
    '-text',
  )
  assert.match(der.stderr, /verify OK/)
  assert.match(der.stdout, new RegExp(`Serial Number: ${serialNumber}`))
  assert.match(der.stdout, /Next Update: /)
  assert.match(der.stdout, /X509v3 CRL Number/)
  const foreign = openssl(
    'crl',
    '-inform',
    'DER',
    '-in',
    file('client.crl'),
    '-CAfile',
    caOf('connector'),
    '-noout',
  )
  assert.match(foreign.stderr, /verify failure|Error getting CRL issuer/)
})

test('logging out puts the certificates of that login on the list, and a connector has a list of its own', async () => {
  await using service = await connectService({ home: operator, port: echo.port })
  const bob = await makePerson(edge, 'bob@mycorp.com')
  const his = await obtain(bob, service.host, service.label)
  assert.equal((await runPostern(['logout'], { home: bob })).code, 0)
  await until('its serial on the list', () => verify(his.cert, fetchCrl('client.pem')).status === 2)

  const list = openssl(
    'crl',
    '-in',
    fetchCrl('connector.pem'),
    '-CAfile',
    caOf('connector'),
    '-text',
    '-noout',
  )
  assert.match(list.stderr, /verify OK/)
  assert.match(list.stdout, /No Revoked Certificates/)
})

test('there are no other lists', async () => {
  for (const name of ['edge.crl', 'client', 'client.crl.pem', '..%2fclient.crl', '__proto__.crl']) {
    const at = [
      '--cacert',
      edge.caFile,
      '--connect-to',
      `${edge.domain}::127.0.0.1:${edge.port}`,
      '--path-as-is',
    ]
    const { stdout } = spawnSync('curl', ['-sS', ...at, `${edge.origin}/v1/crl/${name}`], {
      encoding: 'utf8',
    })
    assert.match(stdout, /NOT_FOUND/, name)
  }
})

test('postern-edge ca crl signs the same list beside the running edge', async () => {
  const printed = await ca()
  assert.equal(printed.code, 0, printed.stderr)
  writeFileSync(file('printed.pem'), printed.stdout)
  const serials = (name: string, form: string) =>
    openssl('crl', '-inform', form, '-in', file(name), '-noout', '-text').stdout.match(/Serial Number: .*/g)
  assert.equal((await ca('--format', 'der', '--out', file('written.crl'))).code, 0)
  const expected = serials(path.basename(fetchCrl('client.crl')), 'DER')
  assert.ok(expected && expected.length > 0)
  assert.deepEqual(serials('printed.pem', 'PEM'), expected)
  assert.deepEqual(serials('written.crl', 'DER'), expected)
  const onTerminal = await ca('--format', 'der')
  assert.equal(onTerminal.code, 2)
  assert.match(onTerminal.stderr, /name a file with --out/)
})

test('a copy is ours and good, or it is said what is wrong with it', async () => {
  const good = await ca('--check', fetchCrl('client.crl'))
  assert.equal(good.code, 0, good.stderr)
  assert.match(good.stderr, /is good until/)
  const check = async (name: string, content: string | Buffer) => {
    writeFileSync(file(name), content)
    const { code, stderr } = await ca('--check', file(name))
    assert.equal(code, 1, stderr)
    return stderr
  }
  const pem = readFileSync(fetchCrl('client.pem'), 'utf8')
  assert.match(
    await check('other.pem', readFileSync(fetchCrl('connector.pem'))),
    /is of another CA \(CRL_INVALID\)/,
  )
  assert.match(await check('garbage.crl', 'garbage'), /cannot be read \(CRL_INVALID\)/)
  assert.match(await check('cut.pem', pem.slice(0, -40)), /cannot be read \(CRL_INVALID\)/)
  const altered = Buffer.from(readFileSync(file('client.crl')))
  altered[altered.length - 1]! ^= 1
  assert.match(await check('altered.crl', altered), /\(CRL_INVALID\)/)
  assert.equal((await ca('--check', file('nothing.pem'))).code, 2)
})

test('a copy that was not fetched again in time is told as expired', async () => {
  const config = JSON.parse(readFileSync(edge.configFile, 'utf8'))
  const configFile = file('edge.yaml')
  writeFileSync(configFile, JSON.stringify({ ...config, ca: { crl_lifetime: '1s' } }), { mode: 0o600 })
  const short = (...args: string[]) => runPosternEdge({ configFile }, ['ca', 'crl', ...args])
  const made = await short('--out', file('short.pem'))
  assert.equal(made.code, 0, made.stderr)
  const expired = await until('the end of the list', async () => {
    const { code, stderr } = await short('--check', file('short.pem'))
    return code === 1 && stderr
  })
  assert.match(expired, /was to be replaced by .*\(CRL_EXPIRED\)/)
  const asRead = openssl(
    'verify',
    '-crl_check',
    '-CAfile',
    caOf('client'),
    '-CRLfile',
    file('short.pem'),
    caOf('client'),
  )
  assert.match(asRead.stderr, /CRL has expired/)
})
