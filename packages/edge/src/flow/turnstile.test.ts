import assert from 'node:assert/strict'
import { it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Turnstile } from './turnstile.ts'

it('lets the first few in at once, and the others in order, a few with each turn', async () => {
  const turnstile = new Turnstile<number>(2)
  const entered: number[] = []
  for (let number = 0; number < 5; number++) turnstile.pass(number, () => entered.push(number))
  assert.deepEqual(entered, [0, 1])
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 3])
  turnstile.pass(5, () => entered.push(5))
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 3, 4, 5])
  await turn()
  turnstile.pass(6, () => entered.push(6))
  assert.equal(entered.at(-1), 6)
})

it('forgets who has left, who then takes nobody’s place', async () => {
  const turnstile = new Turnstile<number>(1)
  const entered: number[] = []
  for (let number = 0; number < 4; number++) turnstile.pass(number, () => entered.push(number))
  turnstile.leave(1)
  turnstile.leave(2)
  await turn()
  assert.deepEqual(entered, [0, 3])
})
