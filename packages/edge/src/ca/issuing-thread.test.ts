import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import type { Worker } from 'node:worker_threads'
import { createCsr } from '@postern/shared/certs/csr'
import { parseSshCertificate, verifySshCertificate } from '@postern/shared/certs/ssh-certificate'
import { toSshPublicKey } from '@postern/shared/certs/ssh-key'
import type { SshPrincipal } from '@postern/shared/certs/ssh-principals'
import type { EmailAddress } from '@postern/shared/email'
import { type Authorities, createAuthorities } from './authorities.ts'
import { IssuingThread } from './issuing-thread.ts'
import { openSshAuthorities, type SshAuthorities } from './ssh-authorities.ts'
import { verifyLeaf } from './verify-leaf.ts'

const HOUR_MS = 3_600_000
const now = Date.now()
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-issuing-'))
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const csr = createCsr(privateKey)
let authorities: Authorities
let sshAuthorities: SshAuthorities
let thread: IssuingThread

/** Threads that were started in this process, the newest last. */
const threads: Worker[] = []
process.on('worker', (worker) => threads.push(worker))

before(async () => {
  authorities = await createAuthorities(scratch, now)
  sshAuthorities = await openSshAuthorities(scratch, 'ed25519')
})
after(() => rmSync(scratch, { recursive: true }))
beforeEach(() => {
  threads.length = 0
  thread = new IssuingThread(authorities.client, sshAuthorities.user)
})
afterEach(() => thread[Symbol.asyncDispose]())

const REQUEST = {
  domain: 'edge.example.com',
  email: 'dev@mycorp.com' as EmailAddress,
  serviceId: 'svc_1',
  publicKey,
  sessionExpiresAt: now + HOUR_MS,
  ttlMs: HOUR_MS,
  backdateMs: HOUR_MS,
}
const sshProfile = (subject = toSshPublicKey(publicKey)) => ({
  kind: 'user' as const,
  subject,
  keyId: 'dev@mycorp.com',
  principals: ['dev@mycorp.com' as SshPrincipal],
  notBefore: now - HOUR_MS,
  notAfter: now + HOUR_MS,
})

describe('the thread of certificates', () => {
  it('reads the key of a request, and signs for it what the edge takes', async () => {
    const key = await thread.readCsrPublicKey(csr)
    assert.ok(key.equals(publicKey))
    const issued = await thread.issueClient({ ...REQUEST, publicKey: key }, now)
    const leaf = new X509Certificate(issued.certificate)
    const ca = new X509Certificate(authorities.client.certificatePem)
    assert.deepEqual(verifyLeaf(leaf, [ca], now), { serial: issued.serial, keyHash: issued.keyHash })
    assert.ok(leaf.publicKey.equals(publicKey))
  })

  it('signs for ssh with every kind of CA', async () => {
    for (const keyType of ['ed25519', 'ecdsa', 'rsa'] as const) {
      const folder = mkdtempSync(path.join(scratch, 'ssh-'))
      const { client } = await createAuthorities(folder, now)
      const { user } = await openSshAuthorities(folder, keyType)
      await using other = new IssuingThread(client, user)
      const { certificate, serial } = await other.issueSshUser(sshProfile())
      const read = parseSshCertificate(certificate)
      assert.equal(read.serial, serial)
      assert.ok(read.subject.keyObject.equals(publicKey))
      verifySshCertificate(read, {
        authorities: [user.publicKey],
        kind: 'user',
        principal: 'dev@mycorp.com',
        now,
      })
    }
  })

  it('is one thread, that gives each its own answer', async () => {
    const serviceIds = Array.from({ length: 20 }, (_, n) => `svc_${n}`)
    const asked = serviceIds.flatMap((serviceId) => [
      thread.issueClient({ ...REQUEST, serviceId }, now),
      assert.rejects(thread.readCsrPublicKey('x'), { code: 'REQUEST_INVALID' }),
    ])
    const issued = (await Promise.all(asked)).filter((answer) => answer !== undefined)
    const names = issued.map(({ certificate }) => new X509Certificate(certificate).subjectAltName)
    const host = 'postern://edge.example.com/service'
    assert.deepEqual(
      names,
      serviceIds.map((id) => `email:dev@mycorp.com, URI:${host}/${id}`),
    )
    assert.equal(threads.length, 1)
  })

  it('refuses in the words of what it calls', async () => {
    await assert.rejects(thread.readCsrPublicKey('x'), {
      name: 'PosternError',
      code: 'REQUEST_INVALID',
      message: 'the certificate request is refused: it is not PKCS#10 in PEM',
      hint: /P-256/,
    })
    await assert.rejects(thread.issueClient({ ...REQUEST, sessionExpiresAt: now }, now), {
      code: 'SESSION_ENDED',
    })
    const email = 'a, OU=admin@mycorp.com' as EmailAddress
    await assert.rejects(thread.issueClient({ ...REQUEST, email }, now), { code: 'ADDRESS_INVALID' })
    await assert.rejects(thread.issueSshUser({ ...sshProfile(), principals: [] }), /names nobody/)
    await assert.rejects(thread.issueSshUser({ ...sshProfile(), kind: 'host' }), /for a host/)
  })

  it('signs for people only, whatever authority it is given', async () => {
    await using connectors = new IssuingThread(authorities.connector, sshAuthorities.host)
    await assert.rejects(connectors.issueClient(REQUEST, now), /under the connector CA/)
    await assert.rejects(connectors.issueSshUser(sshProfile()), /under the CA for hosts/)
  })

  it('is given a key that nobody gets out of it', () => {
    assert.equal(authorities.client.signingKey.extractable, false)
  })

  it('refuses whoever waits when it breaks, and is there again for the next', async () => {
    await thread.readCsrPublicKey(csr)
    const refused = assert.rejects(thread.issueClient(REQUEST, now), /the thread of certificates has ended/)
    await threads.at(-1)!.terminate()
    await refused
    const { serial } = await thread.issueClient(REQUEST, now)
    assert.match(serial, /^[0-9a-f]{32}$/)
    assert.equal(threads.length, 2)
  })

  it('keeps no process alive that has forgotten to end it', () => {
    const from = (name: string) => JSON.stringify(new URL(name, import.meta.url).href)
    const script = path.join(scratch, 'forgets.ts')
    writeFileSync(
      script,
      `import { loadAuthorities } from ${from('authorities.ts')}
      import { openSshAuthorities } from ${from('ssh-authorities.ts')}
      import { IssuingThread } from ${from('issuing-thread.ts')}
      const { client } = await loadAuthorities(${JSON.stringify(scratch)})
      const { user } = await openSshAuthorities(${JSON.stringify(scratch)}, 'ed25519')
      await new IssuingThread(client, user).readCsrPublicKey(${JSON.stringify(csr)})
      console.log('done')`,
    )
    const args = ['--conditions=postern-source', script]
    assert.equal(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 120_000 }), 'done\n')
  })
})
