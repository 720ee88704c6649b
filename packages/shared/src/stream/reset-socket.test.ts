import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { resetSocket } from './reset-socket.ts'
import { connectTcp } from './socket-pair.test-support.ts'

/** Settles when the connection is gone for the one who keeps writing to it. */
function lostToWriter(socket: Socket): Promise<void> {
  socket.on('error', () => {}).resume()
  const again = setInterval(() => socket.write('x'), 5)
  return new Promise((resolve) => {
    socket.on('close', () => {
      clearInterval(again)
      resolve()
    })
  })
}

test('the peer of an open socket sees a reset', { timeout: 120_000 }, async () => {
  const [near, far] = await connectTcp()
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => far.on('error', resolve))
  far.resume()
  resetSocket(near)
  assert.equal((await failed).code, 'ECONNRESET')
})

test('bytes that wait to be sent do not hold a reset back', { timeout: 120_000 }, async () => {
  const [near, far] = await connectTcp()
  near.end(Buffer.alloc(32 * 1024 * 1024))
  await new Promise(setImmediate)
  resetSocket(near)
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => far.on('error', resolve))
  far.resume()
  assert.equal((await failed).code, 'ECONNRESET')
})

for (const [when, wait] of [
  ['in the same turn as its end', async () => {}],
  ['in the turn after its end', () => new Promise<void>(setImmediate)],
  ['when its end is long done', (socket: Socket) => once(socket, 'finish')],
] as const) {
  test(`a reset ${when} closes the descriptor`, { timeout: 120_000 }, async () => {
    const [near, far] = await connectTcp()
    near.end('bye')
    await wait(near)
    resetSocket(near)
    await lostToWriter(far)
  })
}
