import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it, mock } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { Receiver } from '@postern/shared/stream/flow-end'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import { DataPool } from './data-pool.ts'

/** A data connection as the pool sees it. */
class FakeEnd {
  receiver: Receiver | undefined
  closed = false
  isPaused = true
  abortedWith: string | undefined

  receive(receiver: Receiver): void {
    this.receiver = receiver
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
  }

  abort(error: PosternError): void {
    this.closed = true
    this.abortedWith = error.code
  }

  die(): void {
    this.closed = true
    this.receiver?.cut(new PosternError('FLOW_CUT', 'lost'))
  }

  get end(): FramedEnd {
    return this as unknown as FramedEnd
  }
}

const never = new AbortController().signal
const GONE = new PosternError('SERVICE_OFFLINE', 'gone')

describe('the pool of data connections', () => {
  let wants: number[]
  let pool: DataPool

  beforeEach(() => {
    mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
    openPool()
  })
  afterEach(() => {
    pool.close(GONE)
    mock.timers.reset()
  })

  function openPool(max = 100): void {
    pool?.close(GONE)
    wants = []
    pool = new DataPool((count) => wants.push(count), max)
  }
  const offer = () => {
    const fake = new FakeEnd()
    pool.offer(fake.end)
    return fake
  }
  const wanted = () => wants.reduce((sum, count) => sum + count, 0)
  const assertSize = (idle: number, inUse: number) => assert.deepEqual(pool.size, { idle, inUse })

  it('gives a warm one at once, paused', async () => {
    const warm = offer()
    assertSize(1, 0)
    assert.equal(warm.isPaused, false)
    assert.equal(await pool.take(never), warm.end)
    assert.equal(warm.isPaused, true)
    assertSize(0, 1)
    pool.release()
    assertSize(0, 0)
  })

  it('asks for one more than the connector replaces by itself, so that it grows with use', async () => {
    offer()
    await pool.take(never)
    assert.deepEqual(wants, [1])
    offer() // the replacement
    offer() // the wanted one
    assertSize(2, 1)
  })

  it('lets flows wait in their order and asks for each', async () => {
    const taken = [pool.take(never), pool.take(never), pool.take(never)]
    assert.ok(wanted() >= 3)
    const ends = [offer(), offer(), offer()]
    assert.deepEqual(
      await Promise.all(taken),
      ends.map(({ end }) => end),
    )
    assertSize(0, 3)
  })

  it('asks again when fewer came than were wanted', async () => {
    const first = pool.take(never)
    const second = pool.take(never)
    const before = wanted()
    offer()
    await first
    mock.timers.tick(999)
    assert.equal(wanted(), before)
    mock.timers.tick(1)
    assert.ok(wanted() > before)
    const again = wanted()
    mock.timers.tick(1_000)
    assert.ok(wanted() > again, 'as long as somebody waits')
    offer()
    await second
    const satisfied = wanted()
    mock.timers.tick(5_000)
    assert.equal(wanted(), satisfied)
  })

  it('never waits with more than it needs: what arrives beyond is given back', async () => {
    const taken = Array.from({ length: 40 }, () => pool.take(never))
    const wantedForBurst = wanted()
    assert.ok(wantedForBurst >= 40 && wantedForBurst <= 40 + 16, String(wantedForBurst))
    for (let i = 0; i < 40; i++) offer()
    await Promise.all(taken)
    const extra = Array.from({ length: 40 }, offer)
    assertSize(16, 40)
    assert.equal(extra.filter((end) => end.abortedWith === 'EDGE_STOPPING').length, 24)
  })

  it('shrinks to one again', async () => {
    await Promise.all([
      ...Array.from({ length: 20 }, () => pool.take(never)),
      ...Array.from({ length: 20 }, offer),
    ])
    for (let i = 0; i < 20; i++) pool.release()
    const warm = Array.from({ length: 16 }, offer)
    assertSize(16, 0)
    for (const left of [8, 4, 2, 1, 1]) {
      mock.timers.tick(10_000)
      assertSize(left, 0)
    }
    assert.equal(warm.filter((end) => end.closed).length, 15)
    assert.equal(warm.at(-1)!.closed, false, 'the oldest go first')
  })

  it('keeps to its bound, with a place for the one that waits', async () => {
    openPool(3)
    offer()
    const first = await pool.take(never)
    const spare = offer()
    const second = await pool.take(never)
    assert.ok(first && second && spare)
    assertSize(0, 2)
    const replacement = offer()
    assert.equal(replacement.closed, false, 'a connector whose only waiting one is refused would never rest')
    assertSize(1, 2)
    assert.equal(offer().abortedWith, 'EDGE_STOPPING')
    const third = pool.take(never)
    assertSize(1, 2)
    pool.release()
    assert.equal(await third, replacement.end)
    assertSize(0, 2)
  })

  it('asks for a connection when a place gets free and none is warm', async () => {
    openPool(2)
    offer()
    await pool.take(never)
    const waiting = pool.take(never)
    offer().die()
    wants.length = 0
    mock.timers.tick(1_000)
    pool.release()
    const fresh = offer()
    assert.equal(await waiting, fresh.end)
    assertSize(0, 1)
  })

  it('skips connections that died while they waited', async () => {
    const dead = offer()
    const silent = new FakeEnd()
    dead.die()
    assertSize(0, 0)
    pool.offer(silent.end)
    silent.closed = true // nobody has told yet
    const waiting = pool.take(never)
    assertSize(0, 0)
    const fresh = offer()
    assert.equal(await waiting, fresh.end)
  })

  it('does not take in a connection that is dead on arrival', async () => {
    const waiting = pool.take(never)
    const dead = new FakeEnd()
    dead.closed = true
    pool.offer(dead.end)
    assertSize(0, 0)
    const fresh = offer()
    assert.equal(await waiting, fresh.end)
  })

  it('ends a waiting connection that talks', () => {
    const talk: ((receiver: Receiver) => void)[] = [
      (receiver) => receiver.chunk(Buffer.from('x')),
      (receiver) => receiver.end(),
      (receiver) => receiver.control!('ok', {}),
    ]
    for (const say of talk) {
      const fake = offer()
      say(fake.receiver!)
      assert.equal(fake.abortedWith, 'PROTOCOL_INVALID')
      assertSize(0, 0)
    }
  })

  it('forgets a flow that does not wait any longer', async () => {
    const reason = new PosternError('FLOW_REVOKED', 'revoked')
    const abort = new AbortController()
    const left = pool.take(abort.signal)
    const stays = pool.take(never)
    abort.abort(reason)
    await assert.rejects(left, reason)
    const fresh = offer()
    assert.equal(await stays, fresh.end)
    assertSize(0, 1)
    await assert.rejects(pool.take(abort.signal), reason)
    assertSize(0, 1)
  })

  it('tells everybody when the attachment ends', async () => {
    const warm = offer()
    await pool.take(never)
    const idle = offer()
    await pool.take(never)
    const waiting = pool.take(never)
    const spare = new FakeEnd()
    pool.close(GONE)
    await assert.rejects(waiting, GONE)
    await assert.rejects(pool.take(never), GONE)
    pool.offer(spare.end)
    assert.equal(spare.abortedWith, 'SERVICE_OFFLINE')
    assert.deepEqual([warm.closed, idle.closed], [false, false], 'flows go on')
    assertSize(0, 2)
    pool.release()
    pool.release()
    assertSize(0, 0)
    const asked = wanted()
    mock.timers.tick(60_000)
    assert.equal(wanted(), asked)
  })

  it('ends its waiting connections with the attachment', () => {
    const warm = offer()
    pool.close(GONE)
    assert.equal(warm.abortedWith, 'SERVICE_OFFLINE')
    assertSize(0, 0)
  })

  it('never counts below zero, whatever comes in whatever order', async () => {
    let state = 42
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return (state >>> 8) % below
    }
    openPool(10)
    let inUse = 0
    const aborts: AbortController[] = []
    for (let step = 0; step < 5_000; step++) {
      switch (random(5)) {
        case 0: {
          const abort = new AbortController()
          aborts.push(abort)
          pool.take(abort.signal).then(
            () => inUse++,
            () => {},
          )
          break
        }
        case 1:
          offer()
          break
        case 2:
          if (inUse > 0) {
            inUse--
            pool.release()
          }
          break
        case 3:
          aborts[random(aborts.length)]?.abort(GONE)
          break
        case 4:
          mock.timers.tick(random(3_000))
      }
      await Promise.resolve()
      await Promise.resolve()
      await Promise.resolve()
      const { size } = pool
      assert.equal(size.inUse, inUse)
      assert.ok(size.idle >= 0 && size.inUse >= 0 && size.idle + size.inUse <= 10, JSON.stringify(size))
      assert.ok(wants.every((count) => count > 0 && count <= 10))
    }
  })
})
