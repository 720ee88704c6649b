import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { TestLog } from '../test/edge-stage.ts'
import { type StoreWatchParts, watchStore } from './store-watch.ts'

/** A store that is there or not, as the test says. */
function scene(parts: Partial<StoreWatchParts> = {}) {
  const log = new TestLog()
  const store: { answer: () => Promise<boolean> } = { answer: async () => true }
  const ended: string[] = []
  const probes = { count: 0 }
  const watch = watchStore({
    probe: () => {
      probes.count++
      return store.answer()
    },
    policy: 'refuse_new',
    graceMs: 60_000,
    endFlows: ({ code }) => ended.push(code),
    log,
    timings: { everyMs: 5, patienceMs: 50 },
    ...parts,
  })
  const keptAlive = setInterval(() => {}, 1_000) // its own timers keep no process alive
  const stop = () => {
    watch[Symbol.dispose]()
    clearInterval(keptAlive)
  }
  return { watch, log, store, ended, probes, [Symbol.dispose]: stop }
}

describe('the watch over the store', () => {
  it('tells a loss and a recovery, and ends no flow within the grace', async () => {
    using there = scene()
    there.store.answer = () => Promise.reject(new Error('gone'))
    await there.log.until('store.lost')
    assert.equal(there.watch.isLost, true)
    there.store.answer = async () => true
    await there.log.until('store.recovered')
    assert.equal(there.watch.isLost, false)
    assert.deepEqual(there.ended, [])
  })

  it('takes a store that does not answer for lost', async () => {
    using there = scene()
    there.store.answer = () => new Promise(() => {})
    await there.log.until('store.lost')
  })

  it('ends live flows when the grace is over, or at once', async () => {
    using later = scene({ graceMs: 20 })
    later.store.answer = async () => false
    await later.log.until('store.flows_ended')
    assert.deepEqual(later.ended, ['STORE_LOST'])
    using now = scene({ policy: 'refuse_all' })
    now.store.answer = async () => false
    await now.log.until('store.lost')
    assert.deepEqual(now.ended, ['STORE_LOST'])
  })

  it('does not mind one failure', async () => {
    using there = scene()
    let isFirst = true
    there.store.answer = async () => {
      const answer = !isFirst
      isFirst = false
      return answer
    }
    while (there.probes.count < 5) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.deepEqual(there.log.events('store.lost'), [])
  })
})
