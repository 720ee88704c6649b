import assert from 'node:assert/strict'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, beforeEach, describe, it } from 'node:test'
import tls from 'node:tls'
import { TestLog } from '../../test/edge-stage.ts'
import { createAuthorities } from './authorities.ts'
import type { EdgeCa } from './edge-ca.ts'
import { issueEdgeCertificate } from './issue-edge.ts'
import { encodeKey } from './key-file.ts'
import { LiveAuthorities } from './live-authorities.ts'
import { createRoot } from './offline-root.ts'
import { endOverlap, rotateAuthorities } from './rotate.ts'
import { signCa } from './sign-ca.ts'

const DAY_MS = 86_400_000
const NOW = Date.now()
const DOMAIN = 'edge.example.com'
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-edge-ca-'))
after(() => rmSync(scratch, { recursive: true }))

let dataDir: string
let now: number
beforeEach(async () => {
  now = NOW
  dataDir = mkdtempSync(path.join(scratch, 'data-'))
  await createAuthorities(dataDir, now)
})

const rotate = (signsInMs = 0) =>
  rotateAuthorities(dataDir, ['edge'], {
    ...{ now, signsInMs: () => signsInMs, overlapMs: () => 90 * DAY_MS },
    ...{ sshKeyType: 'ed25519', lock: undefined },
  })

async function read(): Promise<EdgeCa> {
  const parts = { lock: undefined, clock: () => now, log: new TestLog() }
  using authorities = await new LiveAuthorities(dataDir, parts).start()
  return authorities.edgeCa
}

/** What a TLS client says that believes these. */
async function connect(ca: EdgeCa, believed: string): Promise<string> {
  const { certificate, key } = await issueEdgeCertificate(ca.signing, DOMAIN, now)
  const server = tls.createServer({ key, cert: certificate + ca.chainPem }, (socket) => socket.end())
  server.on('tlsClientError', () => {})
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const socket = tls.connect({ port, host: '127.0.0.1', servername: DOMAIN, ca: believed })
  const outcome = await once(socket, 'secureConnect').then(
    () => 'believed',
    (error: { code: string }) => error.code,
  )
  socket.destroy()
  server.close()
  return outcome
}

/** As edges made it before it could be rotated: it may have no CA below it. */
async function makeAsBefore(): Promise<string> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const profile = { name: 'Postern edge CA', now, lifetimeMs: 3_650 * DAY_MS, pathLength: 0 }
  const pem = `${(await signCa(privateKey, profile)).toString('pem')}\n`
  writeFileSync(path.join(dataDir, 'ca/edge-ca.key'), encodeKey(privateKey, undefined))
  writeFileSync(path.join(dataDir, 'ca/edge-ca.pem'), pem)
  return pem
}

const LOCK = { passphrase: 'the passphrase of a root', file: 'passphrase' }
const UNKNOWN = /SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT/

describe('the CA of the edge itself', () => {
  it('signs its successor, and who believes either believes the edge until the overlap ends', async () => {
    for (const make of [makeAsBefore, async () => (await read()).chainPem]) {
      const old = await make()
      assert.equal(await connect(await read(), old), 'believed')
      now = NOW
      await rotate()
      const during = await read()
      const next = during.roots[1]!.certificatePem
      assert.deepEqual(
        during.roots.map(({ crossPem }) => crossPem !== undefined),
        [false, true],
      )
      assert.equal(during.overlapUntil, now + 90 * DAY_MS)
      assert.equal(during.signing.certificatePem, next)
      for (const believed of [old, next]) assert.equal(await connect(during, believed), 'believed')
      const another = readFileSync(path.join(dataDir, 'ca/client-ca.pem'), 'utf8')
      assert.match(await connect(during, another), UNKNOWN)

      now += 90 * DAY_MS
      const end = await read()
      assert.deepEqual(
        end.roots.map(({ certificatePem }) => certificatePem),
        [next],
      )
      assert.equal(end.overlapUntil, undefined)
      now = NOW
      assert.equal(await connect(end, next), 'believed')
      assert.match(await connect(end, old), UNKNOWN)
      dataDir = mkdtempSync(path.join(scratch, 'data-'))
      await createAuthorities(dataDir, now)
    }
  })

  it('names its successor before that signs', async () => {
    const first = await read()
    await rotate(DAY_MS)
    const before = await read()
    assert.equal(before.signing.certificatePem, first.signing.certificatePem)
    assert.equal(before.roots.length, 2)
    assert.equal(await connect(before, first.chainPem), 'believed')
    now += DAY_MS
    assert.notEqual((await read()).signing.certificatePem, first.signing.certificatePem)
  })

  it('is gone at once when its key was stolen', async () => {
    const old = (await read()).chainPem
    await rotate()
    assert.equal(await endOverlap(dataDir, ['edge'], now), 1)
    const ended = await read()
    assert.equal(ended.roots.length, 1)
    assert.match(await connect(ended, old), UNKNOWN)
  })

  it('vouches for its successor no longer than it is believed', async () => {
    await rotate(DAY_MS)
    const { crossPem, certificatePem } = (await read()).roots[1]!
    const [cross, root] = [new X509Certificate(crossPem!), new X509Certificate(certificatePem)]
    assert.equal(cross.validToDate.getTime(), Math.floor((now + 91 * DAY_MS) / 1_000) * 1_000)
    assert.deepEqual([cross.ca, cross.subject, cross.issuer], [true, root.subject, root.subject])
    assert.ok(cross.publicKey.equals(root.publicKey))
  })

  it('is not used while its cross-certificate is missing: a copy that is not whole', async () => {
    await rotate()
    const [file] = readdirSync(path.join(dataDir, 'ca')).filter((name) => name.endsWith('.cross.pem'))
    const whole = readFileSync(path.join(dataDir, 'ca', file!))
    rmSync(path.join(dataDir, 'ca', file!))
    await assert.rejects(read(), { code: 'CONFIG_INVALID', message: /cross\.pem/ })
    writeFileSync(path.join(dataDir, 'ca', file!), whole)
    assert.equal((await read()).roots.length, 2)
  })

  it('is left to the root where it stands below one', async () => {
    const root = await createRoot(mkdtempSync(path.join(scratch, 'root-')), now, LOCK)
    dataDir = path.join(mkdtempSync(path.join(scratch, 'data-')), 'below')
    await createAuthorities(dataDir, now, { root })
    await assert.rejects(rotate(), { code: 'CONFIG_INVALID', hint: /ca issue-intermediate/ })
    assert.equal((await read()).chainPem.match(/BEGIN/g)?.length, 2)
  })

  it('leaves no file behind when the one after it is rotated', async () => {
    await rotate()
    now += 91 * DAY_MS
    await rotate()
    now += 91 * DAY_MS
    await rotate()
    const names = readdirSync(path.join(dataDir, 'ca')).filter((name) => name.startsWith('edge-ca'))
    assert.equal(names.length, 6, names.join(' ')) // key, certificate and cross-certificate of the last two
  })
})
