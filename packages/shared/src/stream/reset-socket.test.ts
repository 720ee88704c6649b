import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net, { type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
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

test('a socket that is a file is closed: with bytes of its peer unread that is a reset, else an end', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-reset-'))
  const server = net.createServer({ pauseOnConnect: true }).listen(path.join(folder, 's'))
  await once(server, 'listening')
  try {
    for (const [sent, ending] of [
      ['unread', 'ECONNRESET'],
      ['', 'end'],
    ] as const) {
      const far = net.connect(path.join(folder, 's'))
      const [near] = (await once(server, 'connection')) as [Socket]
      const ended = new Promise<string>((resolve) => {
        far.once('end', () => resolve('end'))
        far.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''))
      })
      if (sent !== '') await new Promise<unknown>((resolve) => far.write(sent, resolve))
      resetSocket(near)
      far.resume()
      assert.equal(await ended, ending)
    }
  } finally {
    server.close()
    rmSync(folder, { recursive: true })
  }
})
