import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { describe, it } from 'node:test'
import { TestLog } from '../../test/edge-stage.ts'
import type { ChangeFeed } from '../store/change-feed.ts'
import type { Change, Message } from '../store/changes.ts'
import { type Fleet, type FleetTimings, joinFleet } from './fleet.ts'

const PATIENT: FleetTimings = { everyMs: 5, patience: 1_000_000, boundMs: 60_000, carryMs: 60_000 }
const LOGOUT: Change = { kind: 'session_ended', sessionId: 'ses_1' }

/** What edges say to each other, without a database between them. */
class Wire {
  readonly ears = new Map<string, { onPayload: (payload: string) => void; onEnd: () => void }>()
  isDown = false
  isSilent = false

  feed(): ChangeFeed & { edge: string } {
    const edge = randomUUID()
    return {
      edge,
      listen: async (ears) => {
        if (this.isDown) throw new Error('nothing answers there')
        this.ears.set(edge, ears)
        return {
          say: async (message) => this.say(edge, message),
          close: () => void this.ears.delete(edge),
        }
      },
    }
  }

  say(from: string, message: Message): void {
    this.raw(`${from} ${JSON.stringify(message)}`)
  }

  raw(payload: string): void {
    if (this.isSilent) return
    for (const { onPayload } of [...this.ears.values()]) queueMicrotask(() => onPayload(payload))
  }

  /** Closes the connection of one edge. */
  cut(edge: string): void {
    const ears = this.ears.get(edge)
    this.ears.delete(edge)
    ears?.onEnd()
  }
}

class Scene implements AsyncDisposable {
  readonly wire = new Wire()
  readonly log = new TestLog()
  readonly carried: Change[] = []
  readonly feed = this.wire.feed()
  reads = 0
  carry: (change: Change) => Promise<void> = async (change) => void this.carried.push(change)
  read: () => Promise<void> = async () => {}
  fleet!: Fleet
  readonly #open = new AsyncDisposableStack()
  readonly #keptAlive = setInterval(() => {}, 1_000) // its own timers keep no process alive

  async join(timings: Partial<FleetTimings> = {}): Promise<this> {
    this.fleet = await this.another(this.feed, timings)
    return this
  }

  async another(feed = this.wire.feed(), timings: Partial<FleetTimings> = {}): Promise<Fleet> {
    return this.#open.use(
      await joinFleet({
        feed,
        carry: (change) => this.carry(change),
        readEverything: () => {
          this.reads++
          return this.read()
        },
        log: this.log,
        timings: { ...PATIENT, ...timings },
      }),
    )
  }

  async until(what: string, look: () => boolean): Promise<void> {
    const deadline = performance.now() + 60_000
    while (!look()) {
      assert.ok(performance.now() < deadline, what)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open.disposeAsync()
    clearInterval(this.#keptAlive)
  }
}

describe('the edges of one store', () => {
  it('carry what another says, and not what they say themselves', async () => {
    await using scene = await new Scene().join()
    scene.wire.say(scene.feed.edge, { kind: 'session_ended', sessionId: 'ses_own' })
    scene.wire.say(randomUUID(), LOGOUT)
    await scene.until('it is carried', () => scene.carried.length > 0)
    assert.deepEqual(scene.carried, [LOGOUT])
    assert.equal(scene.fleet.isDeaf, false)
  })

  it('read everything again for a message that is not understood', async () => {
    await using scene = await new Scene().join()
    assert.equal(scene.reads, 1)
    for (const payload of ['', 'x', `${randomUUID()} {"kind":"from a newer edge"}`]) {
      const before = scene.reads
      scene.wire.raw(payload)
      await scene.until('it reads', () => scene.reads === before + 1)
    }
    assert.deepEqual(scene.carried, [])
  })

  it('listen again after a cut, and read everything before they trust themselves', async () => {
    await using scene = await new Scene().join()
    const read = Promise.withResolvers<void>()
    scene.read = () => read.promise
    scene.wire.cut(scene.feed.edge)
    assert.equal(scene.fleet.isDeaf, true)
    await scene.log.until('changes.not_heard')
    await scene.until('it reads', () => scene.reads === 2)
    assert.equal(scene.fleet.isDeaf, true)
    scene.wire.say(randomUUID(), LOGOUT)
    await scene.until('what is said meanwhile is carried', () => scene.carried.length === 1)
    read.resolve()
    await scene.log.until('changes.heard_again')
    assert.equal(scene.fleet.isDeaf, false)
  })

  it('do not trust a reading during which the connection was cut again, or that failed', async () => {
    await using scene = await new Scene().join()
    const readings = [
      Promise.withResolvers<void>(),
      Promise.withResolvers<void>(),
      Promise.withResolvers<void>(),
    ]
    scene.read = () => readings[scene.reads - 2]!.promise
    scene.wire.cut(scene.feed.edge)
    await scene.until('it reads', () => scene.reads === 2)
    scene.wire.cut(scene.feed.edge)
    readings[0]!.resolve()
    await scene.until('it reads again', () => scene.reads === 3)
    readings[1]!.reject(new Error('the store is gone'))
    await scene.until('and again', () => scene.reads === 4)
    assert.equal(scene.fleet.isDeaf, true)
    readings[2]!.resolve()
    await scene.log.until('changes.heard_again')
  })

  it('notice a connection that hears nothing although it is open', async () => {
    await using scene = await new Scene().join({ patience: 3 })
    scene.wire.isSilent = true
    await scene.log.until('changes.not_heard')
    scene.wire.isSilent = false
    await scene.log.until('changes.heard_again')
  })

  it('are not trusted once they have been deaf for too long', async () => {
    await using scene = await new Scene().join({ boundMs: 20 })
    assert.equal(scene.fleet.isTrusted, true)
    scene.wire.isDown = true
    scene.wire.cut(scene.feed.edge)
    await scene.until('it is not trusted', () => !scene.fleet.isTrusted)
    scene.wire.isDown = false
    await scene.until('it is trusted again', () => scene.fleet.isTrusted)
    assert.equal(scene.fleet.isDeaf, false)
  })

  it('make good a change that cannot be carried out by reading everything', async () => {
    await using scene = await new Scene().join()
    scene.carry = () => Promise.reject(new Error('no'))
    scene.wire.say(randomUUID(), LOGOUT)
    await scene.log.until('changes.heard_again')
    assert.equal(scene.reads, 2)
  })

  it('say when they have carried out what was said before, and who is alone waits for nobody', async () => {
    await using scene = await new Scene().join()
    assert.deepEqual(await scene.fleet.carriedOut(), { told: 0, done: 0 })
    const carrying = Promise.withResolvers<void>()
    scene.carry = () => carrying.promise
    const other = await scene.another()
    await scene.until('they know each other', () => scene.fleet.others === 1 && other.others === 1)
    scene.wire.say(scene.feed.edge, LOGOUT)
    let isDone = false
    const answer = scene.fleet.carriedOut().then((result) => {
      isDone = true
      return result
    })
    await new Promise(setImmediate)
    assert.equal(isDone, false)
    carrying.resolve()
    assert.deepEqual(await answer, { told: 1, done: 1 })
  })

  it('count one that does not answer as told and not done', async () => {
    await using scene = await new Scene().join({ carryMs: 5 })
    scene.wire.say(randomUUID(), { kind: 'here' })
    await scene.until('it is known', () => scene.fleet.others === 1)
    assert.deepEqual(await scene.fleet.carriedOut(), { told: 1, done: 0 })
  })

  it('forget one that leaves, at once, and one that says nothing any more', async () => {
    await using scene = await new Scene().join({ patience: 20 })
    const other = await scene.another()
    await scene.until('it is known', () => scene.fleet.others === 1)
    await other[Symbol.asyncDispose]()
    await scene.until('it has left', () => scene.fleet.others === 0)
    scene.wire.say(randomUUID(), { kind: 'here' })
    await scene.until('another is known', () => scene.fleet.others === 1)
    await scene.until('it is gone', () => scene.fleet.others === 0)
  })
})
