import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { describe, it } from 'node:test'
import { signSshAuthorityList } from '@postern/shared/certs/ssh-authority-list'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import {
  type KnownAuthorities,
  knownFrom,
  learnAuthorities,
  linesOf,
  signingOf,
  withoutEnded,
} from './known-authorities.ts'

const NOW = Date.UTC(2026, 0, 1)
const DAY_MS = 86_400_000
const domain = 'edge.example.com'

function makeCa() {
  const key = generateKeyPairSync('ed25519').privateKey
  return { type: 'ssh-ed25519' as const, key, ca: formatSshPublicKey(toSshPublicKey(key)) }
}
type Ca = ReturnType<typeof makeCa>

const [a, b, c, thief] = [makeCa(), makeCa(), makeCa(), makeCa()]
const dated = ({ ca }: Ca, signsFrom: number, trustedUntil: number | null = null) => ({
  ...{ ca, signsFrom, trustedUntil },
})
const [START, END] = [NOW + DAY_MS, NOW + 8 * DAY_MS]
const ROTATING = [dated(a, 0, END), dated(b, START)]

type Listed = ReturnType<typeof dated>
const signed = (authorities: Listed[], ...by: Ca[]) =>
  by.map((signer) => signSshAuthorityList({ kind: 'user', domain, authorities }, signer))
const learn = (known: KnownAuthorities, lists: string[], now = NOW) =>
  learnAuthorities(known, lists, { kind: 'user', domain, now })
const UNKNOWN = { code: 'SSH_CA_UNKNOWN' }

describe('the ssh CAs that a server believes', () => {
  it('follow from one to the next, which vouches from then on', () => {
    const both = learn(knownFrom([a.ca]), signed(ROTATING, a, b))
    assert.deepEqual(both, { believed: ROTATING, dropped: [] })
    assert.equal(signingOf(both, START - 1).ca, a.ca)
    assert.equal(signingOf(both, START).ca, b.ca)
    const alone = withoutEnded(both, END)
    assert.deepEqual(alone, { believed: [dated(b, START)], dropped: [a.ca] })
    assert.equal(withoutEnded(both, END - 1), both)
    const third = learn(alone, signed([dated(b, START, END + DAY_MS), dated(c, END)], b, c), END)
    assert.deepEqual(linesOf(third), [b.ca, c.ca])
  })

  it('end before their time when the one that signs leaves them out, and do not come back', () => {
    const both = learn(knownFrom([a.ca]), signed(ROTATING, a))
    const ended = learn(both, signed([dated(b, START)], b), START)
    assert.deepEqual(ended, { believed: [dated(b, START)], dropped: [a.ca] })
    // shown again by who kept it
    assert.deepEqual(learn(ended, signed(ROTATING, b), START), ended)
    assert.throws(() => learn(ended, signed(ROTATING, a), START), UNKNOWN)
  })

  it('are not chosen by the one before, once another signs', () => {
    const both = learn(knownFrom([a.ca]), signed(ROTATING, a))
    const forged = signed([dated(a, 0), dated(thief, START + 1)], a)
    assert.throws(() => learn(both, forged, START), UNKNOWN)
    assert.deepEqual(linesOf(learn(both, signed(ROTATING, a, b), START)), [a.ca, b.ca])
  })

  it('are not chosen by a stranger, nor by one whose time is over', () => {
    for (const lists of [
      [],
      signed([dated(thief, 0)], thief),
      signed([dated(a, 0), dated(thief, 1)], thief),
    ]) {
      assert.throws(() => learn(knownFrom([a.ca]), lists), UNKNOWN)
    }
    assert.throws(() => learn(knownFrom([a.ca]), signed(ROTATING, a), END), UNKNOWN)
  })

  it('forget who was announced and is not any more, without holding it against them', () => {
    const both = learn(knownFrom([a.ca]), signed(ROTATING, a))
    const restored = learn(both, signed([dated(a, 0)], a))
    assert.deepEqual(restored, { believed: [dated(a, 0)], dropped: [] })
    assert.deepEqual(learn(restored, signed(ROTATING, a)), both)
  })

  it('are never none', () => {
    const odd = { believed: [dated(a, 0, END)], dropped: [] }
    assert.equal(withoutEnded(odd, END), odd)
    // the newest of the list is one that this server has dropped
    const known = { believed: [dated(b, 0)], dropped: [a.ca] }
    assert.throws(() => learn(known, signed([dated(b, 0, END), dated(a, 1)], b)), UNKNOWN)
  })

  it('may be several at the setup, while one takes over from the other', () => {
    const both = learn(knownFrom([a.ca, b.ca]), signed(ROTATING, a, b))
    assert.deepEqual(both.believed, ROTATING)
    assert.deepEqual(learn(knownFrom([b.ca]), signed(ROTATING, a, b)).believed, ROTATING)
  })
})
