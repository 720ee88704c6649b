import assert from 'node:assert/strict'
import { it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Turnstile } from './turnstile.ts'

/** Two with each turn. */
function open() {
  const turnstile = new Turnstile<number>(2)
  const entered: number[] = []
  const come = (number: number, place = 'mtls') => turnstile.pass(place, number, () => entered.push(number))
  return { turnstile, entered, come }
}

it('lets the first few in at once, and the others in order, a few with each turn', async () => {
  const { entered, come } = open()
  for (let number = 0; number < 5; number++) come(number)
  assert.deepEqual(entered, [0, 1])
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 3])
  come(5)
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 3, 4, 5])
  await turn()
  come(6)
  assert.equal(entered.at(-1), 6)
})

it('has nobody stand behind those who want to another place', async () => {
  const { entered, come } = open()
  for (let number = 0; number < 9; number++) come(number)
  come(100, 'https')
  come(101, 'https')
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 100])
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 100, 3, 101])
  await turn()
  assert.deepEqual(entered, [0, 1, 2, 100, 3, 101, 4, 5])
})

it('forgets who has left, who then takes nobody’s place', async () => {
  const { turnstile, entered, come } = open()
  for (let number = 0; number < 6; number++) come(number)
  turnstile.leave(2)
  turnstile.leave(3)
  await turn()
  assert.deepEqual(entered, [0, 1, 4, 5])
  for (let number = 6; number < 9; number++) come(number)
  turnstile.leave(8)
  await turn()
  assert.deepEqual(entered, [0, 1, 4, 5, 6, 7])
})

it('knows the last of those who want to where most want to', async () => {
  const { turnstile, come } = open()
  come(0)
  come(1)
  assert.equal(turnstile.lastOfMost, undefined)
  for (const number of [2, 3, 4]) come(number)
  come(100, 'https')
  assert.equal(turnstile.lastOfMost, 4)
  await turn()
  assert.equal(turnstile.lastOfMost, 4)
  turnstile.leave(4)
  assert.equal(turnstile.lastOfMost, 3)
})
