import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync, randomBytes, randomInt } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { type Krl, parseKrl, writeKrl } from '@postern/shared/certs/ssh-krl'
import { parseSshPrincipal } from '@postern/shared/certs/ssh-principals'
import { issueSshCertificate } from '../ca/issue-ssh.ts'
import { openSshAuthorities } from '../ca/ssh-authorities.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-krl-'))
after(() => rmSync(folder, { recursive: true }))
mkdirSync(path.join(folder, 'ca'))

const { user, host } = await openSshAuthorities(folder, 'ed25519')
const subject = toSshPublicKey(generateKeyPairSync('ed25519').publicKey)
const NOW = Date.now()

async function issue(n: number) {
  const issued = await issueSshCertificate(user, {
    kind: 'user',
    subject,
    keyId: `person-${n}@mycorp.com`,
    principals: [parseSshPrincipal(`person-${n}@mycorp.com`)],
    notBefore: NOW,
    notAfter: NOW + 300_000,
  })
  const file = path.join(folder, `${n}-cert.pub`)
  writeFileSync(file, `${issued.certificate}\n`)
  return { ...issued, keyId: `person-${n}@mycorp.com`, file }
}

const certificates = await Promise.all(Array.from({ length: 40 }, (_, n) => issue(n)))

/** The files that `ssh-keygen -Q` says are revoked. */
function askKeygen(krl: Buffer): Set<string> {
  const file = path.join(folder, `${randomBytes(4).toString('hex')}.krl`)
  writeFileSync(file, krl)
  const args = ['-Q', '-f', file, ...certificates.map((certificate) => certificate.file)]
  const { stdout, stderr, status } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  const answers = stdout.trim().split('\n')
  assert.equal(answers.length, certificates.length, `${status} ${stdout} ${stderr}`)
  return new Set(
    answers.filter((line) => line.endsWith(': REVOKED')).map((line) => /^(\S+) /.exec(line)![1]!),
  )
}

const list = (entries: Krl['certificates']) =>
  writeKrl({ version: BigInt(NOW), generatedAt: NOW, certificates: entries })

describe('the list of revoked certificates, as ssh-keygen reads it', () => {
  it('revokes what it names by serial and key id, under its CA only', () => {
    const some = certificates.slice(0, 3)
    const serials = some.map(({ serial }) => serial)
    const ca = user.publicKey.blob
    const files = new Set(some.map(({ file }) => file))
    assert.deepEqual(askKeygen(list([{ ca, serials, keyIds: [] }])), files)
    const keyIds = some.map(({ keyId }) => keyId)
    assert.deepEqual(askKeygen(list([{ ca, serials: [], keyIds }])), files)
    const foreign = { ca: host.publicKey.blob, serials, keyIds }
    assert.deepEqual(askKeygen(list([foreign])), new Set())
    assert.deepEqual(askKeygen(list([])), new Set())
  })

  it('agrees with us about any list', () => {
    for (let round = 0; round < 40; round++) {
      const wanted = certificates.filter(() => randomInt(3) === 0)
      const [bySerial, byKeyId] = [wanted.filter((_, n) => n % 3 > 0), wanted.filter((_, n) => n % 3 === 0)]
      const noise = Array.from({ length: randomInt(200) }, () => randomBytes(8).readBigUInt64BE() || 1n)
      const edges = [1n, 2n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n].filter(() => randomInt(2) === 0)
      const bytes = list([
        {
          ca: user.publicKey.blob,
          serials: [...bySerial.map(({ serial }) => serial), ...noise, ...edges],
          keyIds: [...byKeyId.map(({ keyId }) => keyId), 'ü@mycorp.com'],
        },
        { ca: host.publicKey.blob, serials: noise, keyIds: [] },
      ])
      assert.deepEqual(askKeygen(bytes), new Set(wanted.map(({ file }) => file)), bytes.toString('base64'))
      assert.deepEqual(writeKrl(parseKrl(bytes, [user.publicKey.blob, host.publicKey.blob])), bytes)
    }
  })
})
