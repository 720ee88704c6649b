import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { signSshAuthorityList, verifySshAuthorityList } from '@postern/shared/certs/ssh-authority-list'
import {
  encodeSshSignature,
  parseSshCertificate,
  type SshCertificate,
  verifySshCertificate,
} from '@postern/shared/certs/ssh-certificate'
import {
  parseHostKeyLine,
  signHostKeyRecord,
  verifyHostKeyRecord,
} from '@postern/shared/certs/ssh-host-record'
import { signSshJws } from '@postern/shared/certs/ssh-jws'
import { formatSshPublicKey, parseSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { parseSshPrincipal } from '@postern/shared/certs/ssh-principals'
import { sshString } from '@postern/shared/certs/ssh-wire'
import { issueSshCertificate } from '../packages/edge/src/ca/issue-ssh.ts'
import type { SshAuthority } from '../packages/edge/src/ca/ssh-authorities.ts'
import { mutateBytes, mutateText } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** Keys and certificates of OpenSSH, and the record of host keys: lines that people, servers and the network bring. */

const NOW = 1_800_000_000_000
const PAIRS = [
  generateKeyPairSync('ed25519'),
  generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  generateKeyPairSync('rsa', { modulusLength: 2_048 }),
]
const KEYS = PAIRS.map(({ publicKey }) => toSshPublicKey(publicKey))
const KEY_LINES = KEYS.map(formatSshPublicKey)
const WORDS = [
  ...KEYS.map(({ type }) => type),
  ' ',
  '\t',
  '\n',
  '=',
  '==',
  'AAAA',
  '-cert-v01@openssh.com',
  '\0',
]

/** Edits of the text, or of the bytes that its second word encodes. */
function mutateLine(line: string, random: Random): string {
  if (random.oneIn(4)) return mutateText(line, random, WORDS)
  const [name, encoded] = line.split(' ')
  const bytes = mutateBytes(Buffer.from(encoded!, 'base64'), random)
  return `${random.oneIn(16) ? random.of(WORDS) : name} ${bytes.toString('base64')}`
}

/** `undefined` where it was refused as the codes say. */
function readOrRefuse<T>(read: () => T, codes: readonly string[]): T | undefined {
  try {
    return read()
  } catch (error) {
    const { code = '' } = error as { code?: string }
    assert.ok(codes.includes(code), String(error))
    return undefined
  }
}

const SSH_KEY_TARGET: Target = {
  name: 'ssh-key',
  cases: 40_000,
  run(random) {
    const line = mutateLine(random.of(KEY_LINES), random)
    const key = readOrRefuse(() => parseSshPublicKey(line), ['SSH_KEY_INVALID'])
    if (!key) return
    // one key has one form: what was read is what is written, and what node:crypto has is the same key
    assert.equal(
      formatSshPublicKey(key),
      line
        .trim()
        .split(/[ \t]+/, 2)
        .join(' '),
    )
    assert.deepEqual(toSshPublicKey(key.keyObject).blob, key.blob)
  },
}

interface Signer {
  authority: SshAuthority
  sign: (bytes: Buffer) => Buffer
}

const SIGNERS: readonly Signer[] = PAIRS.map(({ privateKey, publicKey }) => {
  const key = toSshPublicKey(publicKey)
  const authority: SshAuthority = {
    kind: 'user',
    publicKey: key,
    line: formatSshPublicKey(key),
    signingKey: privateKey,
  }
  return { authority, sign: (bytes) => encodeSshSignature(key.type, signRaw(privateKey, bytes)) }
})
const AUTHORITIES = SIGNERS.map(({ authority }) => authority.publicKey)

function signRaw(key: KeyObject, bytes: Buffer): Buffer {
  if (key.asymmetricKeyType === 'ed25519') return sign(null, bytes, key)
  if (key.asymmetricKeyType === 'rsa') return sign('sha512', bytes, key)
  return sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' })
}

interface Seed {
  line: string
  read: SshCertificate
  signer: Signer
}

async function issueSeed(signer: Signer, n: number): Promise<Seed> {
  const { certificate } = await issueSshCertificate(signer.authority, {
    kind: 'user',
    subject: KEYS[n % KEYS.length]!,
    keyId: 'ann@mycorp.com',
    principals: ['ann@mycorp.com', 'db.edge.test'].map(parseSshPrincipal),
    notBefore: NOW - 300_000,
    notAfter: NOW + 300_000,
    extensions: ['permit-pty', 'permit-user-rc'],
    criticalOptions: n % 2 === 0 ? { 'force-command': 'uptime', 'source-address': '10.0.0.0/8' } : {},
  })
  return { line: certificate, read: parseSshCertificate(certificate), signer }
}

const SEEDS = await Promise.all(SIGNERS.flatMap((signer) => KEYS.map((_, n) => issueSeed(signer, n))))
/** RSA takes too long to sign a new one each time. */
const QUICK_SEEDS = SEEDS.filter(({ read }) => read.ca.type !== 'ssh-rsa')

const wordOf = ({ line }: Seed) => line.split(' ')[0]!
const lineOf = (seed: Seed, signed: Buffer, signature: Buffer) =>
  `${wordOf(seed)} ${Buffer.concat([signed, sshString(signature)]).toString('base64')}`

/** What verifies is, byte for byte, something that was signed. */
const SSH_CERTIFICATE_TARGET: Target = {
  name: 'ssh-certificate',
  cases: 20_000,
  run(random) {
    const seed = random.of(SEEDS)
    const other = random.of(SEEDS)
    const line = random.oneIn(8)
      ? lineOf(seed, seed.read.signed, other.signer.sign(Buffer.from('something else')))
      : mutateLine(seed.line, random)
    const read = readVerified(line)
    if (read) assert.deepEqual(read.signed, seed.read.signed)
  },
}

/** Signed as it stands, whatever it says: a signature makes nothing of it true. */
const SSH_SIGNED_TARGET: Target = {
  name: 'ssh-certificate-signed',
  cases: 10_000,
  run(random) {
    const seed = random.of(QUICK_SEEDS)
    const signed = Buffer.from(mutateBytes(seed.read.signed, random))
    const read = readVerified(lineOf(seed, signed, seed.signer.sign(signed)))
    if (!read) return
    assert.deepEqual(read.signed, signed)
    assert.equal(read.kind, 'user')
    assert.ok(read.principals.length > 0, 'names nobody')
    assert.ok(read.notBefore <= NOW && NOW < read.notAfter, 'at another time')
    for (const option of read.criticalOptions.keys()) assert.match(option, /^(force-command|source-address)$/)
  },
}

function readVerified(line: string): SshCertificate | undefined {
  return readOrRefuse(() => {
    const read = parseSshCertificate(line)
    verifySshCertificate(read, { authorities: AUTHORITIES, kind: 'user', now: NOW })
    return read
  }, ['CERTIFICATE_REFUSED', 'CERTIFICATE_EXPIRED'])
}

const SSH_HOST_KEY_TARGET: Target = {
  name: 'ssh-host-key',
  cases: 100_000,
  run(random) {
    const line = mutateLine(random.of(KEY_LINES), random)
    const read = readOrRefuse(() => parseHostKeyLine(line), ['SSH_KEY_INVALID'])
    if (read === undefined) return
    assert.match(read, /^[a-z0-9-]+ [A-Za-z0-9+/]+=*$/) // one line, and inert in a known_hosts file
    assert.equal(parseHostKeyLine(read), read)
  },
}

const HOST_CA = { type: KEYS[0]!.type, key: PAIRS[0]!.privateKey }
const RECORD = {
  host: 'db.edge.test',
  serviceId: 'svc_1',
  keys: KEY_LINES.slice(0, 2),
  revision: 3,
  iat: NOW / 1_000,
}
const RECORD_JWS = signHostKeyRecord(RECORD, HOST_CA)

const SSH_HOST_RECORD_TARGET: Target = {
  name: 'ssh-host-record',
  cases: 4_000, // each checks a signature
  run(random) {
    const jws = mutateText(RECORD_JWS, random, ['.', '=', 'e30', '\n'])
    const read = readOrRefuse(() => verifyHostKeyRecord(jws, KEY_LINES[0]!), ['CERTIFICATE_REFUSED'])
    if (read) assert.deepEqual(read, RECORD)
  },
}

const LIST = {
  kind: 'user' as const,
  domain: 'edge.test',
  authorities: [
    { ca: KEY_LINES[0]!, signsFrom: 0, trustedUntil: NOW + 1_000 },
    { ca: KEY_LINES[1]!, signsFrom: NOW - 1_000, trustedUntil: null },
  ],
}
const LIST_JWS = signSshAuthorityList(LIST, HOST_CA)
const LIST_WORDS = ['null', '1e9', '-1', '""', '[]', '},{', '"user"', '"host"', ...KEY_LINES]

const readList = (jws: string) =>
  readOrRefuse(
    () => verifySshAuthorityList(jws, { kind: 'user', domain: 'edge.test', by: KEY_LINES[0]!, now: NOW }),
    ['CERTIFICATE_REFUSED', 'SSH_KEY_INVALID'],
  )

/** Which CAs a server believes: what it takes was signed, and can be followed, whatever was signed. */
const SSH_AUTHORITY_LIST_TARGET: Target = {
  name: 'ssh-authority-list',
  cases: 4_000, // each checks a signature
  run(random) {
    if (random.oneIn(2)) {
      const read = readList(mutateText(LIST_JWS, random, ['.', '=', 'e30', '\n']))
      if (read) assert.deepEqual(read, LIST.authorities)
      return
    }
    let said: object
    try {
      said = JSON.parse(mutateText(JSON.stringify(LIST), random, LIST_WORDS))
    } catch {
      return
    }
    if (typeof said !== 'object' || said === null) return
    const read = readList(signSshJws('postern-ssh-cas+jws', said, HOST_CA))
    if (!read) return
    assert.ok(read.length > 0 && read.length <= 8)
    assert.equal(read.at(-1)!.trustedUntil, null, 'nobody is left in the end')
    assert.ok(
      read.some(({ ca, trustedUntil }) => ca === KEY_LINES[0] && (trustedUntil ?? NOW + 1) > NOW),
      'who signed it is not in it',
    )
    for (const { ca } of read) assert.equal(formatSshPublicKey(parseSshPublicKey(ca)), ca)
  },
}

export const SSH_TARGETS: readonly Target[] = [
  SSH_KEY_TARGET,
  SSH_CERTIFICATE_TARGET,
  SSH_SIGNED_TARGET,
  SSH_HOST_KEY_TARGET,
  SSH_HOST_RECORD_TARGET,
  SSH_AUTHORITY_LIST_TARGET,
]
