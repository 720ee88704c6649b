import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** A root that is not the edge's: people trust it, and the edge's CA below it is replaced without anybody noticing. */

const dataDir = makeTempFolder('edge')
const stick = makeTempFolder('stick')
const root = path.join(stick, 'root')
const passphraseFile = writeFile(path.join(stick, 'passphrase'), 'of the root in the safe\n')
const ROOT = ['--offline-root', root, '--root-passphrase-file', passphraseFile]
let edge: EdgeProcess

function writeFile(file: string, text: string): string {
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

before(async () => {
  const config = {
    domain: 'edge.localhost',
    listen: '127.0.0.1:0',
    data_dir: dataDir,
    identity: { dev: true },
  }
  const configFile = writeFile(path.join(dataDir, 'edge.yaml'), JSON.stringify(config))
  const half = await runPosternEdge({ configFile }, ['ca', 'init', '--offline-root', root])
  assert.equal(half.code, 2, half.stderr)
  const made = await runPosternEdge({ configFile }, ['ca', 'init', ...ROOT])
  assert.equal(made.code, 0, made.stderr)
  edge = await startEdge({ dataDir })
})
after(() => edge?.[Symbol.asyncDispose]())

/** What the edge shows to somebody who trusts the root alone. */
function shownChain(): X509Certificate[] {
  const at = ['-connect', `127.0.0.1:${edge.port}`, '-servername', edge.domain]
  const trust = [
    '-CAfile',
    path.join(root, 'root-ca.pem'),
    '-verify_return_error',
    '-verify_hostname',
    edge.domain,
  ]
  const shown = spawnSync('openssl', ['s_client', ...at, ...trust, '-showcerts'], {
    encoding: 'utf8',
    input: '',
  })
  assert.match(shown.stdout, /Verify return code: 0 \(ok\)/, shown.stderr)
  const pems = shown.stdout.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)!
  return pems.slice(0, 3).map((pem) => new X509Certificate(pem))
}

test('the root signs another CA for the edge, and nobody notices', async () => {
  assert.ok(!readdirSync(path.join(dataDir, 'ca')).includes('root-ca.key'))
  assert.match(readFileSync(path.join(root, 'root-ca.key'), 'utf8'), /ENCRYPTED PRIVATE KEY/)
  const trusted = new X509Certificate(readFileSync(path.join(root, 'root-ca.pem')))
  const fingerprint = trusted.fingerprint256.replaceAll(':', '').toLowerCase()
  assert.match(edge.logs(), new RegExp(`--ca-fingerprint sha256:${fingerprint}\\n`))
  const exported = await runPosternEdge(edge, ['ca', 'export'])
  assert.equal(new X509Certificate(exported.stdout).fingerprint256, trusted.fingerprint256)
  const [, before] = shownChain()
  assert.equal(before!.issuer, trusted.subject)

  const rootFile = path.join(root, 'root-ca.pem')
  const home = await makePerson({ origin: edge.origin, caFile: rootFile }, 'operator@mycorp.com')
  await using echo = await startEcho()
  await using service = await connectService({ home, port: echo.port })
  const reach = () => runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
  assert.equal((await reach()).stdout, 'hello')

  const issued = await runPosternEdge(edge, ['ca', 'issue-intermediate', ...ROOT])
  assert.equal(issued.code, 0, issued.stderr)
  await until(
    'the edge shows a certificate of the new CA',
    () => shownChain()[1]!.subject !== before!.subject,
  )
  assert.equal(shownChain()[1]!.issuer, trusted.subject)
  const after = await reach()
  assert.equal(after.stdout, 'hello', after.stderr)
  await service.stop()
  await using again = await connectService({ home, port: echo.port })
  assert.equal(again.host, service.host)
  const pinned = await makePerson({ origin: edge.origin, caFile: rootFile }, 'ann@mycorp.com')
  const hers = await runPostern(['client', 'tls', '--host', again.host], { home: pinned, stdin: 'hello' })
  assert.equal(hers.stdout, 'hello', hers.stderr)

  // the key that has signed before goes with the next one
  assert.ok(existsSync(path.join(dataDir, 'ca/edge-ca.key')))
  assert.equal((await runPosternEdge(edge, ['ca', 'issue-intermediate', ...ROOT])).code, 0)
  assert.ok(!existsSync(path.join(dataDir, 'ca/edge-ca.key')))
})

test('a wrong passphrase and a foreign root change nothing, and a root is never overwritten', async () => {
  const files = () => readdirSync(path.join(dataDir, 'ca')).sort()
  const before = files()
  const wrong = writeFile(path.join(stick, 'wrong'), 'not the one of the root\n')
  const locked = await runPosternEdge(edge, [
    ...['ca', 'issue-intermediate', '--offline-root', root],
    ...['--root-passphrase-file', wrong],
  ])
  assert.equal(locked.code, 2)
  assert.match(locked.stderr, /does not open the key .*\(CA_KEY_LOCKED\)/)

  const other = makeTempFolder('other')
  const configFile = writeFile(
    path.join(other, 'edge.yaml'),
    JSON.stringify({ ...JSON.parse(readFileSync(edge.configFile, 'utf8')), data_dir: other }),
  )
  const foreign = ['--offline-root', path.join(stick, 'foreign'), '--root-passphrase-file', passphraseFile]
  assert.equal((await runPosternEdge({ configFile }, ['ca', 'init', ...foreign])).code, 0)
  const refused = await runPosternEdge(edge, ['ca', 'issue-intermediate', ...foreign])
  assert.equal(refused.code, 2)
  assert.match(refused.stderr, /people trust another root: sha256:/)
  assert.deepEqual(files(), before)

  const again = await runPosternEdge({ configFile }, ['ca', 'init', ...ROOT])
  assert.equal(again.code, 2)
  assert.match(again.stderr, /has a root already/)
})
