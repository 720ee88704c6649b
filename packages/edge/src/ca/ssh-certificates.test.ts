import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { parseSshCertificate, verifySshCertificate } from '@postern/shared/certs/ssh-certificate'
import { parseSshPublicKey, sshFingerprint, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { parseSshPrincipal } from '@postern/shared/certs/ssh-principals'
import { issueSshCertificate, type SshCertificateProfile } from './issue-ssh.ts'
import { openSshAuthorities, SSH_CA_KEY_TYPES, type SshAuthority } from './ssh-authorities.ts'

const CERTIFICATES_PER_CA = 2_000
const NOW = 1_800_000_000_000
const folder = mkdtempSync(path.join(tmpdir(), 'postern-ssh-ca-'))
after(() => rmSync(folder, { recursive: true }))

const KEYS: Readonly<Record<string, KeyObject>> = {
  ed25519: generateKeyPairSync('ed25519').publicKey,
  ecdsa: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey,
  rsa: generateKeyPairSync('rsa', { modulusLength: 2_048 }).publicKey,
}

const PROFILE: Omit<SshCertificateProfile, 'subject'> = {
  kind: 'user',
  keyId: 'atoonk@gmail.com',
  principals: [parseSshPrincipal('atoonk@gmail.com'), parseSshPrincipal('postern_ssh_signed')],
  notBefore: NOW - 300_000,
  notAfter: NOW + 300_000,
  extensions: ['permit-pty', 'permit-X11-forwarding', 'permit-user-rc'],
}

const authorities = Object.fromEntries(
  await Promise.all(SSH_CA_KEY_TYPES.map(async (type) => [type, await newAuthorities(type)] as const)),
)

async function newAuthorities(type: (typeof SSH_CA_KEY_TYPES)[number]) {
  const dataDir = path.join(folder, type)
  await mkdir(path.join(dataDir, 'ca'), { recursive: true })
  return openSshAuthorities(dataDir, type)
}

/** What `ssh-keygen -L` says about many lines. */
function listCertificates(lines: readonly string[]): string[] {
  const { stdout, stderr, status } = spawnSync('ssh-keygen', ['-L', '-f', '-'], {
    input: `${lines.join('\n')}\n`,
    encoding: 'utf8',
    env: { ...process.env, TZ: 'UTC' },
    maxBuffer: 64 * 1024 * 1024,
  })
  assert.equal(status, 0, stderr)
  return stdout.split(/^\(stdin\):\d+:.*$/m).slice(1)
}

describe('ssh certificates', () => {
  for (const [caType, { user: ca }] of Object.entries(authorities)) {
    it(`are taken by ssh-keygen and by our verifier, ${CERTIFICATES_PER_CA} under an ${caType} CA`, async () => {
      const subjects = Object.values(KEYS).map(toSshPublicKey)
      const lines: string[] = []
      const serials = new Set<string>()
      for (let n = 0; n < CERTIFICATES_PER_CA; n++) {
        const issued = await issueSshCertificate(ca, { ...PROFILE, subject: subjects[n % subjects.length]! })
        verifySshCertificate(parseSshCertificate(issued.certificate), expectation(ca))
        lines.push(issued.certificate)
        serials.add(String(issued.serial))
      }
      const listed = listCertificates(lines)
      assert.equal(listed.length, CERTIFICATES_PER_CA)
      const shown = listed.map((text) => /Serial: (\d+)/.exec(text)![1]!)
      assert.deepEqual(new Set(shown), serials)
      const signer = sshFingerprint(ca.publicKey.blob)
      assert.ok(listed.every((text) => text.includes(signer)))
    })
  }

  it('show exactly what was said, options sorted', async () => {
    const subject = toSshPublicKey(KEYS.ecdsa!)
    const { certificate, serial } = await issueSshCertificate(authorities.ecdsa!.user, {
      ...PROFILE,
      subject,
      criticalOptions: { 'source-address': '10.0.0.0/8', 'force-command': 'uptime' },
    })
    const [text] = listCertificates([certificate])
    assert.equal(
      text!.replace(/SHA256:\S+/g, 'SHA256:…').trimStart(),
      `Type: ecdsa-sha2-nistp256-cert-v01@openssh.com user certificate
        Public key: ECDSA-CERT SHA256:…
        Signing CA: ECDSA SHA256:… (using ecdsa-sha2-nistp256)
        Key ID: "atoonk@gmail.com"
        Serial: ${serial}
        Valid: from 2027-01-15T07:55:00 to 2027-01-15T08:05:00
        Principals: 
                atoonk@gmail.com
                postern_ssh_signed
        Critical Options: 
                force-command uptime
                source-address 10.0.0.0/8
        Extensions: 
                permit-X11-forwarding
                permit-pty
                permit-user-rc
`,
    )
    const read = parseSshCertificate(certificate)
    assert.deepEqual(
      [...read.criticalOptions],
      [
        ['force-command', 'uptime'],
        ['source-address', '10.0.0.0/8'],
      ],
    )
    assert.deepEqual(read.extensions, ['permit-X11-forwarding', 'permit-pty', 'permit-user-rc'])
    assert.equal(read.keyId, 'atoonk@gmail.com')
    assert.equal(read.serial, serial)
  })

  it('name hosts under the CA for hosts only', async () => {
    const { user, host } = authorities.ed25519!
    const subject = toSshPublicKey(KEYS.ed25519!)
    const principals = [parseSshPrincipal('calm-river-1.edge.example.com')]
    const profile = { ...PROFILE, kind: 'host' as const, subject, principals, extensions: [] }
    const { certificate } = await issueSshCertificate(host, profile)
    assert.match(listCertificates([certificate])[0]!, /host certificate/)
    const read = parseSshCertificate(certificate)
    verifySshCertificate(read, { ...expectation(host), kind: 'host', principal: principals[0]! })
    assert.throws(() => verifySshCertificate(read, expectation(host)), { code: 'CERTIFICATE_REFUSED' })
    assert.throws(() => verifySshCertificate(read, { ...expectation(user), kind: 'host' }), {
      message: /stranger/,
    })
    await assert.rejects(issueSshCertificate(user, profile), TypeError)
  })

  it('are refused without principals, and without time', async () => {
    const subject = toSshPublicKey(KEYS.ed25519!)
    const { user } = authorities.ed25519!
    await assert.rejects(issueSshCertificate(user, { ...PROFILE, subject, principals: [] }), TypeError)
    await assert.rejects(
      issueSshCertificate(user, { ...PROFILE, subject, notAfter: PROFILE.notBefore + 10 }),
      {
        code: 'SESSION_ENDED',
      },
    )
  })
})

describe('our verifier', () => {
  for (const [caType, { user: ca }] of Object.entries(authorities)) {
    it(`refuses every certificate of an ${caType} CA with one bit turned`, async () => {
      const subject = toSshPublicKey(KEYS.ed25519!)
      const { certificate } = await issueSshCertificate(ca, { ...PROFILE, subject })
      const [name, encoded] = certificate.split(' ')
      const bytes = Buffer.from(encoded!, 'base64')
      for (let index = 0; index < bytes.length; index++) {
        const altered = Buffer.from(bytes)
        altered[index]! ^= 1 << (index % 8)
        assert.throws(
          () =>
            verifySshCertificate(
              parseSshCertificate(`${name} ${altered.toString('base64')}`),
              expectation(ca),
            ),
          { name: 'PosternError' },
          `byte ${index}`,
        )
      }
    })
  }

  it('refuses a certificate of another CA, also of one that puts ours in its place', async () => {
    const [ours, theirs] = [authorities.ed25519!.user, authorities.ed25519!.host]
    const subject = toSshPublicKey(KEYS.ed25519!)
    const foreign: SshAuthority = { ...theirs, kind: 'user' }
    const forged: SshAuthority = { ...ours, signingKey: theirs.signingKey }
    const read = parseSshCertificate(
      (await issueSshCertificate(foreign, { ...PROFILE, subject })).certificate,
    )
    assert.throws(() => verifySshCertificate(read, expectation(ours)), { message: /stranger/ })
    await assert.rejects(issueSshCertificate(forged, { ...PROFILE, subject }), { message: /wrong signature/ })
  })

  it('looks at the clock, the kind and the name', async () => {
    const ca = authorities.rsa!.user
    const subject = toSshPublicKey(KEYS.rsa!)
    const read = parseSshCertificate((await issueSshCertificate(ca, { ...PROFILE, subject })).certificate)
    const refusals: [Partial<ReturnType<typeof expectation>> & { principal?: string }, string][] = [
      [{ now: NOW - 300_001 }, 'CERTIFICATE_REFUSED'],
      [{ now: NOW + 300_000 }, 'CERTIFICATE_EXPIRED'],
      [{ principal: 'root' }, 'CERTIFICATE_REFUSED'],
      [{ principal: 'atoonk@gmail.co' }, 'CERTIFICATE_REFUSED'],
    ]
    verifySshCertificate(read, { ...expectation(ca), principal: 'atoonk@gmail.com' })
    for (const [change, code] of refusals) {
      assert.throws(() => verifySshCertificate(read, { ...expectation(ca), ...change }), { code })
    }
  })
})

function expectation(ca: SshAuthority) {
  return { authorities: [ca.publicKey], kind: 'user' as const, now: NOW }
}

describe('the authorities of ssh', () => {
  const open = (dataDir: string) => openSshAuthorities(dataDir, 'ed25519')
  const fresh = async (name: string) => {
    const dataDir = path.join(folder, name)
    await mkdir(path.join(dataDir, 'ca'), { recursive: true })
    return dataDir
  }

  it('are made once, whoever comes first, in files that only their owner reads', async () => {
    const dataDir = await fresh('once')
    const opened = await Promise.all(Array.from({ length: 5 }, () => open(dataDir)))
    assert.equal(new Set(opened.map(({ user }) => user.line)).size, 1)
    assert.equal(new Set(opened.map(({ host }) => host.line)).size, 1)
    assert.notEqual(opened[0]!.user.line, opened[0]!.host.line)
    const { mode } = await stat(path.join(dataDir, 'ca/ssh-user-ca.key'))
    assert.equal(mode & 0o777, 0o600)
    const text = await readFile(path.join(dataDir, 'ca/ssh-user-ca.pub'), 'utf8')
    assert.deepEqual(parseSshPublicKey(text.trim()).blob, opened[0]!.user.publicKey.blob)
    assert.equal((await openSshAuthorities(dataDir, 'rsa')).user.line, opened[0]!.user.line)
  })

  it('are not made anew beside a public key, nor taken from a damaged or open file', async () => {
    const dataDir = await fresh('damaged')
    await open(dataDir)
    const [key, pub] = ['ssh-user-ca.key', 'ssh-user-ca.pub'].map((name) => path.join(dataDir, 'ca', name))
    const whole = await readFile(key!, 'utf8')
    await writeFile(key!, whole.slice(0, 60))
    await assert.rejects(open(dataDir), { code: 'CONFIG_INVALID' })
    await writeFile(key!, whole, { mode: 0o600 })
    await writeFile(pub!, await readFile(path.join(dataDir, 'ca/ssh-host-ca.pub')))
    await assert.rejects(open(dataDir), { message: /another public key/ })
    rmSync(key!)
    await assert.rejects(open(dataDir), { message: /private key is missing/ })
  })
})
