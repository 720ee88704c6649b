import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { JoinedWrites, SMALL_BYTES } from './joined-writes.ts'

/** What a socket would send, call by call. */
class Calls extends Writable {
  readonly sent: string[] = []

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.sent.push(String(chunk))
    done()
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.sent.push(Buffer.concat(chunks.map(({ chunk }) => chunk)).toString())
    done()
  }
}

it('sends a small message at once, and what follows it in the same turn in one go', async () => {
  const calls = new Calls()
  const writes = new JoinedWrites(calls)
  for (const text of ['a', 'b', 'c']) writes.writeWhole(Buffer.from(text))
  assert.deepEqual(calls.sent, ['a'])
  await turn()
  assert.deepEqual(calls.sent, ['a', 'bc'])
  writes.writeWhole(Buffer.from('d'))
  assert.deepEqual(calls.sent, ['a', 'bc', 'd'])
})

it('keeps the order of messages and of parts', async () => {
  const calls = new Calls()
  const writes = new JoinedWrites(calls)
  writes.write(Buffer.from('header '))
  writes.writeWhole(Buffer.from('small'))
  assert.deepEqual(calls.sent, [])
  await turn()
  writes.writeWhole(Buffer.from('first '))
  writes.write(Buffer.from('header '))
  writes.write(Buffer.from('payload'))
  await turn()
  assert.deepEqual(calls.sent, ['header small', 'first ', 'header payload'])
})

it('joins what is large', async () => {
  const calls = new Calls()
  const writes = new JoinedWrites(calls)
  const large = Buffer.alloc(SMALL_BYTES + 1, 'x')
  for (let times = 0; times < 2; times++) writes.writeWhole(large)
  assert.deepEqual(calls.sent, [])
  await turn()
  assert.deepEqual(
    calls.sent.map(({ length }) => length),
    [2 * large.length],
  )
})
