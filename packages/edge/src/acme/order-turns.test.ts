import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, it, mock } from 'node:test'
import { TestLog } from '../../test/edge-stage.ts'
import { openStore } from '../store/open.ts'
import { takeTurnsInStore } from './order-turns.ts'

const NOW = Date.now()
const QUICK = { firstLookMs: 1, lookMs: 1 }
const never = new AbortController().signal

describe('the edges of one store order', () => {
  it('one after the other', async () => {
    await using store = await openStore('sqlite::memory:')
    let ordering = 0
    const order = async (edge: string) => {
      const takeTurn = takeTurnsInStore(store.db, {
        edge,
        clock: () => NOW,
        log: new TestLog(),
        timings: QUICK,
      })
      for (let times = 0; times < 3; times++) {
        await using _turn = await takeTurn(never)
        assert.equal(++ordering, 1, 'alone')
        await new Promise(setImmediate)
        ordering -= 1
      }
    }
    await Promise.all(['a', 'b', 'c'].map(order))
  })

  it('also when one of them died while it had its turn, once that has run out', async () => {
    await using store = await openStore('sqlite::memory:')
    let now = NOW
    const edge = (name: string) =>
      takeTurnsInStore(store.db, { edge: name, clock: () => now, log: new TestLog(), timings: QUICK })
    await edge('dies')(never) // and never ends it
    const stop = new AbortController()
    const waiting = edge('lives')(stop.signal)
    now = NOW + 59_000
    stop.abort()
    await assert.rejects(waiting, { name: 'AbortError' })
    now = NOW + 60_000
    await using turn = await edge('lives')(never)
    assert.equal(turn.signal.aborted, false)
  })

  it('and one that was held up too long hears that its turn is over', async () => {
    mock.timers.enable({ apis: ['setInterval'] })
    await using store = await openStore('sqlite::memory:')
    let now = NOW
    const edge = (name: string) =>
      takeTurnsInStore(store.db, { edge: name, clock: () => now, log: new TestLog(), timings: QUICK })
    await using slow = await edge('slow')(never)
    mock.timers.tick(15_000) // it is kept
    now += 61_000
    await using _other = await edge('other')(never)
    const over = once(slow.signal, 'abort')
    mock.timers.tick(15_000)
    await over
    assert.equal((slow.signal.reason as { code: string }).code, 'STORE_LOST')
    mock.timers.reset()
  })
})
