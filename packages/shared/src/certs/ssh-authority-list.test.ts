import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, it } from 'node:test'
import { type SshAuthorityList, signSshAuthorityList, verifySshAuthorityList } from './ssh-authority-list.ts'
import { signHostKeyRecord } from './ssh-host-record.ts'
import { signSshJws } from './ssh-jws.ts'
import { formatSshPublicKey, type SshKeyType, toSshPublicKey } from './ssh-key.ts'

const NOW = Date.UTC(2026, 0, 1)
const DAY_MS = 86_400_000

interface Ca {
  type: SshKeyType
  key: KeyObject
  line: string
}

function toCa(key: KeyObject): Ca {
  const publicKey = toSshPublicKey(key)
  return { type: publicKey.type, key, line: formatSshPublicKey(publicKey) }
}

const [old, next, stranger] = Array.from({ length: 3 }, () => toCa(generateKeyPairSync('ed25519').privateKey))
const authorities = [
  { ca: old!.line, signsFrom: 0, trustedUntil: NOW + 8 * DAY_MS },
  { ca: next!.line, signsFrom: NOW + DAY_MS, trustedUntil: null },
]
const LIST: SshAuthorityList = { kind: 'user', domain: 'edge.example.com', authorities }

const verify = (jws: string, { by = old!, now = NOW } = {}) =>
  verifySshAuthorityList(jws, { kind: 'user', domain: 'edge.example.com', by: by.line, now })
const REFUSED = { code: 'CERTIFICATE_REFUSED' }

describe('the list of ssh CAs', () => {
  it('is believed of each CA in it, until that one is over', () => {
    for (const by of [old!, next!]) {
      assert.deepEqual(verify(signSshAuthorityList(LIST, by), { by }), authorities)
    }
    const after = NOW + 8 * DAY_MS
    assert.throws(() => verify(signSshAuthorityList(LIST, old!), { now: after }), REFUSED)
    assert.ok(verify(signSshAuthorityList(LIST, next!), { by: next!, now: after }))
  })

  it('is signed by every kind of CA', () => {
    const keys = [
      generateKeyPairSync('ed25519'),
      generateKeyPairSync('ec', { namedCurve: 'P-256' }),
      generateKeyPairSync('rsa', { modulusLength: 2_048 }),
    ].map(({ privateKey }) => toCa(privateKey))
    for (const by of keys) {
      const alone = { ...LIST, authorities: [{ ca: by.line, signsFrom: 0, trustedUntil: null }] }
      assert.equal(verify(signSshAuthorityList(alone, by), { by }).length, 1)
    }
  })

  it('is refused of another signer, another kind, another edge', () => {
    assert.throws(() => verify(signSshAuthorityList(LIST, stranger!)), REFUSED)
    assert.throws(() => verify(signSshAuthorityList(LIST, next!)), REFUSED)
    assert.throws(() => verify(signSshAuthorityList({ ...LIST, kind: 'host' }, old!)), /is for hosts/)
    const elsewhere = { ...LIST, domain: 'edge.elsewhere.org' }
    assert.throws(() => verify(signSshAuthorityList(elsewhere, old!)), /is of "edge\.elsewhere\.org"/)
    // the same key says other things too
    const said = { host: 'a', serviceId: 's', keys: [], revision: 1, iat: 1 }
    assert.throws(() => verify(signHostKeyRecord(said, old!)), /is something else/)
    assert.throws(() => verify(signSshJws('postern-ssh-host-keys+jws', LIST, old!)), /is something else/)
  })

  it('is refused when it says what cannot be', () => {
    const [first, second] = authorities as [(typeof authorities)[0], (typeof authorities)[0]]
    const wrong: [string, unknown, RegExp][] = [
      ['nobody', [], /is malformed/],
      ['another one', [second], /does not believe/],
      ['one twice', [first, { ...first, trustedUntil: null }], /names one twice/],
      ['out of order', [second, { ...first, trustedUntil: null }], /is out of order/],
      ['all of them end', [first, { ...second, trustedUntil: NOW + DAY_MS }], /is out of order/],
      ['more than it may', [first, { ...second, comment: 'x' }], /is malformed/],
      ['no key', [{ ...first, ca: 'ssh-ed25519 AAAA' }, second], /ssh key is refused/],
      ['an option', [{ ...first, ca: `cert-authority ${first.ca}` }, second], /is malformed/],
      ['a comment', [{ ...first, ca: `${first.ca} x` }, second], /is malformed/],
      ['half a millisecond', [{ ...first, signsFrom: 0.5 }, second], /is malformed/],
      ['too many', Array.from({ length: 9 }, () => first), /is malformed/],
    ]
    for (const [what, all, message] of wrong) {
      const jws = signSshJws('postern-ssh-cas+jws', { ...LIST, authorities: all }, old!)
      assert.throws(() => verify(jws), message, what)
    }
    // the same bytes in another spelling: of the last character two bits count
    const signed = signSshAuthorityList(LIST, old!)
    const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const respelt = signed.slice(0, -1) + digits[digits.indexOf(signed.at(-1)!) + 1]
    assert.throws(() => verify(respelt), REFUSED)
    for (const jws of ['', '..', 'x', 'a.b.c.d', `${signSshAuthorityList(LIST, old!)}.x`]) {
      assert.throws(() => verify(jws), REFUSED, jws)
    }
  })
})
