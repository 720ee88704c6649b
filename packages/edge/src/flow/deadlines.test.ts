import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Deadlines } from './deadlines.ts'

function start() {
  const clock = { now: 1_000 }
  const handed: string[][] = []
  const deadlines = new Deadlines<string>(
    () => clock.now,
    (due) => handed.push(due.sort()),
  )
  const at = (now: number) => {
    clock.now = now
    deadlines.check()
    return handed.splice(0)
  }
  return { deadlines, at }
}

describe('deadlines', () => {
  it('keeps to the order of time, whatever the clock does', () => {
    const { deadlines, at } = start()
    using _ = deadlines
    deadlines.set('noon', 2_000)
    deadlines.set('night', 9_000)
    deadlines.set('also noon', 2_000)
    assert.deepEqual(at(1_999), [])
    assert.deepEqual(at(2_000), [['also noon', 'noon']])
    assert.deepEqual(at(500), []) // set back
    deadlines.set('past', 100)
    assert.deepEqual(at(500), [['past']])
    assert.deepEqual(at(86_400_000), [['night']]) // slept
    assert.equal(deadlines.size, 0)
  })

  it('knows the newest moment of each only', () => {
    const { deadlines, at } = start()
    using _ = deadlines
    deadlines.set('a', 2_000)
    deadlines.set('a', 3_000)
    deadlines.set('b', 2_000)
    deadlines.delete('b')
    assert.deepEqual(at(2_500), [])
    assert.deepEqual(at(3_000), [['a']])
  })

  it('looks by itself', async () => {
    const handed = Promise.withResolvers<string[]>()
    using deadlines = new Deadlines<string>(Date.now, handed.resolve)
    deadlines.set('now', Date.now())
    const keptAlive = setInterval(() => {}, 1_000) // its own timer keeps no process alive
    assert.deepEqual(await handed.promise, ['now'])
    clearInterval(keptAlive)
  })
})
