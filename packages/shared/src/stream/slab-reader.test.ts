import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { BusyReader } from './busy-reader.ts'
import { type Lender, type Loan, SLAB_BYTES, SlabReader, SPARE_MS } from './slab-reader.ts'
import { connectTcp, connectTls } from './socket-pair.test-support.ts'

const MIB = 1024 * 1024

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** Reads everything that comes; `take` sees each piece. Resolves at the end of the input. */
async function readAll(input: Socket, take: (bytes: Buffer, lender?: Lender) => void): Promise<void> {
  const reader = SlabReader.attach(input, take)
  assert.ok(reader, 'this version of Node no longer lets a socket read into given memory: see slab-reader.ts')
  input.resume()
  await once(input, 'end')
  reader.flush()
}

for (const [transport, connect] of [
  ['TCP', connectTcp],
  ['TLS', connectTls],
] as const) {
  describe(`reading ${transport} into slabs`, { timeout: 120_000 }, () => {
    for (const side of ['accepted', 'opened'] as const) {
      it(`brings every byte, where the connection was ${side}`, async () => {
        const [opened, accepted] = await connect()
        const [from, to] = side === 'accepted' ? [opened, accepted] : [accepted, opened]
        const sent = randomBytes(8 * MIB)
        const pieces: Buffer[] = []
        from.end(sent)
        await readAll(to, (bytes) => pieces.push(bytes)) // kept, and not borrowed: never overwritten
        assert.equal(sha256(Buffer.concat(pieces)), sha256(sent))
      })
    }

    it('fills a slab again when all of it was given back, and not before', async () => {
      const [from, to] = await connect()
      const sent = randomBytes(8 * MIB)
      const hash = createHash('sha256')
      const slabs = new Set<ArrayBufferLike>()
      let lent: { bytes: Buffer; loan: Loan; copy: string }[] = []
      const giveBack = () => {
        for (const { bytes, loan, copy } of lent) {
          assert.equal(sha256(bytes), copy, 'overwritten while it was borrowed')
          loan()
        }
        lent = []
      }
      from.end(sent)
      await readAll(to, (bytes, lender) => {
        slabs.add(bytes.buffer)
        hash.update(bytes)
        lent.push({ bytes, loan: lender!.borrow(), copy: sha256(bytes) })
        if (lent.length >= 4) giveBack()
      })
      giveBack()
      assert.equal(hash.digest('hex'), sha256(sent))
      assert.ok(slabs.size < sent.length / SLAB_BYTES / 2, `${slabs.size} slabs`)
    })

    it('does not fill a slab again that was not written', async () => {
      const [from, to] = await connect()
      const slabs: ArrayBufferLike[] = []
      from.end(randomBytes(2 * MIB))
      await readAll(to, (bytes, lender) => {
        if (slabs.at(-1) !== bytes.buffer) {
          assert.ok(!slabs.includes(bytes.buffer))
          slabs.push(bytes.buffer)
        }
        lender!.borrow()(new Error('the connection is gone'))
      })
      assert.ok(slabs.length > 4)
    })

    it('holds no slab for a connection that has become quiet, and takes one again', async () => {
      const [from, to] = await connect()
      const sizes: number[] = []
      let heard = Promise.withResolvers<void>()
      SlabReader.attach(to, (bytes, lender) => {
        sizes.push(bytes.buffer.byteLength)
        lender?.borrow()()
        heard.resolve()
      })
      to.resume()
      for (let turn = 0; turn < 40; turn++) {
        heard = Promise.withResolvers<void>()
        from.write('x')
        await heard.promise
      }
      assert.equal(sizes[0], SLAB_BYTES)
      assert.ok(sizes.at(-1)! < SLAB_BYTES, 'what comes one by one lies in no slab')
      from.end(randomBytes(MIB))
      await once(to, 'end')
      assert.equal(sizes.at(-1), SLAB_BYTES)
    })

    it('keeps no empty slabs for a connection that has nothing to say for a second', async () => {
      const [from, to] = await connect()
      const slabs = new Set<ArrayBufferLike>()
      const loans: Loan[] = []
      let bytesRead = 0
      let awaited = { bytes: MIB, ...Promise.withResolvers<void>() }
      SlabReader.attach(to, (bytes, lender) => {
        slabs.add(bytes.buffer)
        loans.push(lender!.borrow())
        bytesRead += bytes.length
        if (bytesRead >= awaited.bytes) awaited.resolve()
      })
      to.resume()
      const send = async () => {
        awaited = { bytes: bytesRead + MIB, ...Promise.withResolvers<void>() }
        from.write(randomBytes(MIB))
        await awaited.promise
        for (const giveBack of loans.splice(0)) giveBack()
      }
      await send()
      const first = slabs.size
      await send()
      const busy = slabs.size
      assert.ok(busy <= first + 1, `used again while it is busy, not ${first} and then ${busy} slabs`)
      await pause(SPARE_MS + 200) // the silence itself
      await send()
      assert.ok(slabs.size > busy + 2, 'new ones after the silence')
    })

    it('stops and goes on with the stream', async () => {
      const [from, to] = await connect()
      const sent = randomBytes(16 * MIB)
      const hash = createHash('sha256')
      let pieces = 0
      let isPaused = false
      from.end(sent)
      await readAll(to, (bytes) => {
        assert.ok(pieces === 0 || !isPaused || transport === 'TLS', 'read on while it was paused')
        hash.update(bytes)
        if (++pieces % 8 !== 0) return
        isPaused = true
        to.pause()
        setImmediate(() => {
          isPaused = false
          to.resume()
        })
      })
      assert.equal(hash.digest('hex'), sha256(sent))
    })
  })
}

describe('reading what is not busy', () => {
  it('leaves a stream that is no socket as it is', async () => {
    const input = new PassThrough()
    assert.equal(
      SlabReader.attach(input, () => {}),
      undefined,
    )
    let length = 0
    new BusyReader(input, (bytes, lender) => {
      assert.equal(lender, undefined)
      length += bytes.length
    })
    input.end(Buffer.alloc(MIB))
    await once(input, 'end')
    assert.equal(length, MIB)
  })

  it('takes a slab only after the first quarter of a MiB', async () => {
    const [from, to] = await connectTcp()
    const sent = randomBytes(4 * MIB)
    const hash = createHash('sha256')
    const lent: number[] = []
    let own = 0
    const reader = new BusyReader(to, (bytes, lender) => {
      hash.update(bytes)
      if (lender) lent.push(bytes.length)
      else own += bytes.length
    })
    from.end(sent)
    await once(to, 'end')
    reader.flush()
    assert.equal(hash.digest('hex'), sha256(sent))
    assert.ok(own >= 256 * 1024 && own < MIB, `${own} bytes before`)
    assert.ok(lent.length > 0)
  })
})
