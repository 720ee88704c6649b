import assert from 'node:assert/strict'
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import {
  type Checkpoint,
  findCheckpoint,
  formatSigner,
  isSignedCheckpoint,
  parseSigner,
  signCheckpoint,
} from './checkpoint.ts'
import { formatExportLine, hashRecord, type LinkedRecord, NOTHING_BEFORE } from './record.ts'
import { ExportVerifier, type VerifyOptions } from './verify.ts'

interface Vectors {
  signer: string
  privateKeySeedHex: string
  checkpoint: Checkpoint
  records: { text: string; hash: string }[]
  lines: string[]
}
const vectors = JSON.parse(
  readFileSync(new URL('../../vectors/audit-chain.json', import.meta.url), 'utf8'),
) as Vectors
const newKey = () => generateKeyPairSync('ed25519').privateKey
const KEY = newKey()
const SIGNER = formatSigner(KEY)

type Entry = LinkedRecord & { seq: number }

/** A chain as an edge writes it: a checkpoint behind every third record. */
function makeChain(chain: string, length: number, key: KeyObject = KEY): Entry[] {
  const entries: Entry[] = []
  const add = (type: string, event: object) => {
    const position = entries.length + 1
    const previous = entries.at(-1)?.hash ?? NOTHING_BEFORE
    const content = { chain, position, at: 1_000 + position, type, previous, event: JSON.stringify(event) }
    entries.push({ seq: position, ...content, hash: hashRecord(content) })
  }
  add('audit.chain_started', { type: 'audit.chain_started', chain })
  while (entries.length < length) {
    const { position, hash } = entries.at(-1)!
    if (position % 3 === 0) {
      const checkpoint = signCheckpoint({ chain, position, hash, at: 1_000 }, key)
      add('audit.checkpoint', { type: 'audit.checkpoint', checkpoint })
    } else add('flow.closed', { type: 'flow.closed', bytesUp: position })
  }
  return entries
}

function verify(lines: readonly string[], options?: VerifyOptions) {
  const verifier = new ExportVerifier(options)
  for (const line of lines) verifier.add(line)
  return verifier.finish()
}

const linesOf = (entries: readonly Entry[]) =>
  entries.map((entry, index) => formatExportLine({ ...entry, seq: index + 1 }))
const checkpointAt = (entries: readonly Entry[], position: number, key = KEY) => {
  const { chain, hash } = entries[position - 1]!
  return signCheckpoint({ chain, position, hash, at: 1_000 }, key)
}
const breaks = (message: RegExp) => ({ code: 'AUDIT_BROKEN', message })

describe('vectors', () => {
  it('of hashes, lines and a checkpoint', () => {
    for (const { text, hash } of vectors.records) {
      const [, chain, position, at, type, previous, event] = text.split('\n') as string[]
      const content = { chain, position: Number(position), at: Number(at), type, previous, event }
      assert.equal(hashRecord(content as LinkedRecord), hash)
    }
    const result = verify(vectors.lines, { signers: [vectors.signer], checkpoints: [vectors.checkpoint] })
    assert.deepEqual([result.records, result.unlinked, result.chains.length], [6, 2, 1])
    assert.deepEqual([result.chains[0]?.to, result.chains[0]?.signedTo], [4, 2])
  })

  it('of a key and its signature', () => {
    const der = Buffer.from(`302e020100300506032b657004220420${vectors.privateKeySeedHex}`, 'hex')
    const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    assert.equal(formatSigner(key), vectors.signer)
    assert.deepEqual(signCheckpoint(vectors.checkpoint, key).signature, vectors.checkpoint.signature)
    assert.ok(isSignedCheckpoint(vectors.checkpoint))
    assert.equal(isSignedCheckpoint({ ...vectors.checkpoint, position: 1 }), false)
  })
})

describe('an export', () => {
  const chain = makeChain('chn_a', 10)
  const lines = linesOf(chain)

  it('that is whole is verified, with what is signed of it', () => {
    const { chains, unlinked } = verify(lines, { signers: [SIGNER], checkpoints: [checkpointAt(chain, 10)] })
    assert.equal(unlinked, 0)
    assert.deepEqual(chains, [{ chain: 'chn_a', from: 1, to: 10, hash: chain[9]!.hash, signedTo: 9 }])
  })

  it('breaks at every bit that is turned', () => {
    const line = Buffer.from(lines[4]!)
    for (let byte = 0; byte < line.length; byte++) {
      const turned = Buffer.from(line)
      turned[byte]! ^= 1
      const changed = [...lines.slice(0, 4), turned.toString('latin1'), ...lines.slice(5)]
      assert.throws(() => verify(changed), breaks(/^line 5/), turned.toString())
    }
  })

  it('names the record after one that was removed', () => {
    const removed = chain.filter(({ position }) => position !== 5)
    assert.throws(
      () => verify(linesOf(removed)),
      breaks(/^line 5 .*position 6\): position 5 was expected: a/),
    )
  })

  it('names the first of two that changed places, and one that is there twice', () => {
    const moved = [...chain.slice(0, 4), chain[5]!, chain[4]!, ...chain.slice(6)]
    assert.throws(() => verify(linesOf(moved)), breaks(/^line 5 .*position 6\): position 5 was expected/))
    const twice = [...chain.slice(0, 5), chain[4]!, ...chain.slice(5)]
    assert.throws(() => verify(linesOf(twice)), breaks(/^line 6 .*position 5\): position 6 was expected: it/))
    assert.throws(() => verify([lines[0]!, lines[1]!, lines[1]!]), breaks(/^line 3 .*number is not higher/))
  })

  it('names one that was put in, however well it was made', () => {
    const content = { ...chain[4]!, event: '{"type":"flow.closed","bytesUp":0}' }
    const forged = { ...content, hash: hashRecord(content) }
    const changed = [...chain.slice(0, 4), forged, ...chain.slice(5)]
    assert.throws(() => verify(linesOf(changed)), breaks(/^line 6 .*position 6\): it does not follow/))
    const bare = formatExportLine({ seq: 5, at: 1, type: 'login.ok', event: '{}' })
    assert.throws(() => verify([...lines.slice(0, 4), bare]), breaks(/^line 5 \(seq 5\): it has no chain/))
  })

  it('names a log that was written anew, by a checkpoint kept elsewhere or by the key', () => {
    const rewritten = makeChain('chn_a', 10, newKey())
    assert.throws(
      () => verify(linesOf(rewritten), { signers: [SIGNER] }),
      breaks(/^line 4 .*another key has signed it/),
    )
    const kept = [checkpointAt(chain, 6)]
    assert.throws(
      () => verify(linesOf(rewritten), { checkpoints: kept }),
      breaks(/^line 6 .*not what a check/),
    )
  })

  it('that was cut off is found by a checkpoint kept elsewhere, and by nothing else', () => {
    const cut = linesOf(chain.slice(0, 7))
    assert.equal(verify(cut, { signers: [SIGNER] }).chains[0]?.to, 7)
    assert.throws(
      () => verify(cut, { checkpoints: [checkpointAt(chain, 9)] }),
      breaks(/ends at position 7, a checkpoint knows position 9/),
    )
    assert.throws(
      () => verify([], { checkpoints: [checkpointAt(chain, 9)] }),
      breaks(/chain chn_a is missing/),
    )
    assert.throws(() => verify([...cut, lines[7]!.slice(0, -9)]), breaks(/^line 8: it is not JSON/))
  })

  it('of two edges has two chains, each on its own; a record in the other one is named', () => {
    const other = makeChain('chn_b', 10)
    const mixed = chain.flatMap((entry, index) => [entry, other[index]!])
    assert.deepEqual(
      verify(linesOf(mixed), { signers: [SIGNER] }).chains.map(({ chain, to }) => [chain, to]),
      [
        ['chn_a', 10],
        ['chn_b', 10],
      ],
    )
    const swapped = [...chain.slice(0, 4), { ...other[4]!, chain: 'chn_a' }, ...chain.slice(5)]
    assert.throws(() => verify(linesOf(swapped)), breaks(/^line 5 .*chain chn_a, position 5\): it does not/))
    const stray = [...chain.slice(0, 4), other[4]!, ...chain.slice(4)]
    assert.throws(
      () => verify(linesOf(stray)),
      breaks(/^line 5 .*chain chn_b, position 5\): the records before/),
    )
    const unsigned = makeChain('chn_c', 2)
    assert.throws(
      () => verify(linesOf([...chain, ...unsigned]), { signers: [SIGNER] }),
      breaks(/chain chn_c has no checkpoint/),
    )
  })

  it('of two edges names what was changed, removed or moved in either chain, and leaves the other alone', () => {
    const other = makeChain('chn_b', 10)
    const mixed = chain.flatMap((entry, index) => [entry, other[index]!])
    for (const [at, name] of [
      [8, 'chn_a'],
      [9, 'chn_b'],
    ] as const) {
      const turned = linesOf(mixed)
      turned[at] = turned[at]!.replace('"bytesUp":4', '"bytesUp":5')
      assert.notEqual(turned[at], linesOf(mixed)[at])
      const named = (line: number, position: number, what: string) =>
        breaks(new RegExp(`^line ${line} .*chain ${name}, position ${position}\\): .*${what}`))
      assert.throws(() => verify(turned), named(at + 1, 5, 'does not fit its hash'))
      // the next record of the same chain stands one line later, and two where it was moved
      assert.throws(
        () => verify(linesOf(mixed.toSpliced(at, 1))),
        named(at + 2, 6, 'position 5 was expected'),
      )
      const moved = mixed.with(at, mixed[at + 2]!).with(at + 2, mixed[at]!)
      assert.throws(() => verify(linesOf(moved)), named(at + 1, 6, 'position 5 was expected'))
    }
  })

  it('of two edges without all of one is found by a checkpoint of that one, and by nothing else', () => {
    const other = makeChain('chn_b', 10)
    assert.equal(verify(lines, { signers: [SIGNER] }).chains.length, 1)
    const kept = [checkpointAt(chain, 9), checkpointAt(other, 3)]
    assert.throws(() => verify(lines, { checkpoints: kept }), breaks(/chain chn_b is missing.* position 3/))
    const cut = [...chain, ...other.slice(0, 5)]
    const later = [checkpointAt(other, 9)]
    assert.throws(
      () => verify(linesOf(cut), { checkpoints: later }),
      breaks(/chain chn_b ends at position 5/),
    )
  })

  it('may begin at a checkpoint, or behind one kept elsewhere, or anywhere when it is a part', () => {
    assert.equal(verify(linesOf(chain.slice(3)), { signers: [SIGNER] }).chains[0]?.from, 4)
    const middle = linesOf(chain.slice(4))
    assert.throws(() => verify(middle), breaks(/^line 1 .*records before it are missing/))
    assert.equal(verify(middle, { isPart: true }).chains[0]?.from, 5)
    assert.equal(verify(middle, { checkpoints: [checkpointAt(chain, 4)] }).chains[0]?.from, 5)
    assert.throws(
      () => verify(middle, { isPart: true, checkpoints: [checkpointAt(makeChain('chn_a', 4, newKey()), 4)] }),
      breaks(/^line 1 .*not what a checkpoint says/),
    )
  })

  it('refuses checkpoints that are not signed by whom they name, or that differ', () => {
    const checkpoint = checkpointAt(chain, 9)
    assert.throws(
      () => verify(lines, { checkpoints: [{ ...checkpoint, at: 7 }] }),
      breaks(/its signature is wrong/),
    )
    assert.throws(
      () => verify(lines, { signers: [formatSigner(newKey())], checkpoints: [checkpoint] }),
      breaks(/another key has signed it/),
    )
    const other = checkpointAt(makeChain('chn_a', 9, newKey()), 9)
    assert.throws(() => verify(lines, { checkpoints: [checkpoint, other] }), breaks(/there twice/))
  })

  it('has nothing beside what was written', () => {
    for (const line of [
      lines[0]!.replace('{"seq"', '{ "seq"'),
      lines[0]!.replace('"event":{', '"event":{"chain":"x",'),
      lines[0]!.replace('"seq":1', '"seq":1,"more":1'),
      lines[0]!.replace('"position":1', '"position":1.0'),
      '[]',
      '',
      'null',
    ]) {
      assert.throws(() => verify([line]), breaks(/^line 1/), line)
    }
  })
})

describe('a checkpoint', () => {
  it('is found in a line of an export, of the list, and of the log', () => {
    const { checkpoint } = vectors
    for (const kept of [
      checkpoint,
      { checkpoint },
      { event: { checkpoint } },
      { event: 'audit.checkpoint', checkpoint },
    ]) {
      assert.deepEqual(findCheckpoint(kept), checkpoint)
    }
    for (const other of [null, {}, { event: null }, { ...checkpoint, chain: 'a\nb' }]) {
      assert.equal(findCheckpoint(other), undefined)
    }
  })

  it('takes keys as they are printed', () => {
    assert.equal(parseSigner(` ${SIGNER}\n`), SIGNER)
    assert.throws(() => parseSigner('ssh-ed25519 AAAA'), /is not a key/)
  })
})
