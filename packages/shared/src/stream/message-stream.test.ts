import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { describe, test } from 'node:test'
import { MAX_TRANSPORT_MESSAGE_BYTES, TRANSPORT_END } from '../protocol/transport.ts'
import { type MessageSocket, MessageStream } from './message-stream.ts'

/** What is sent is kept, and written when the test says so. */
class Wire extends EventEmitter implements MessageSocket {
  readonly sent: (Buffer | string)[] = []
  readonly waiting: ((error?: Error) => void)[] = []
  isPaused = false
  ended: 'closed' | 'terminated' | undefined

  send(data: Buffer | string, done: (error?: Error) => void): void {
    this.sent.push(data)
    this.waiting.push(done)
  }
  pause(): void {
    this.isPaused = true
  }
  resume(): void {
    this.isPaused = false
  }
  close(): void {
    this.ended = 'closed'
  }
  terminate(): void {
    this.ended = 'terminated'
  }
  writeAll(): void {
    for (const done of this.waiting.splice(0)) done()
  }
}

function open(): { wire: Wire; stream: MessageStream } {
  const wire = new Wire()
  return { wire, stream: new MessageStream(wire) }
}

describe('a WebSocket as a stream', () => {
  test('ends each way by itself, and closes once both have', async () => {
    const { wire, stream } = open()
    stream.end('question')
    wire.writeAll()
    wire.writeAll()
    assert.deepEqual(wire.sent.map(String), ['question', TRANSPORT_END])
    assert.equal(wire.ended, undefined)
    // the answer after the end
    wire.emit('message', Buffer.from('answer'), true)
    wire.emit('message', Buffer.from(TRANSPORT_END), false)
    assert.equal(String(Buffer.concat(await stream.toArray())), 'answer')
    assert.equal(wire.ended, 'closed')
  })

  test('sends no message that is too long, and the next one when the last is written', () => {
    const { wire, stream } = open()
    const bytes = Buffer.alloc(2 * MAX_TRANSPORT_MESSAGE_BYTES + 1, 7)
    stream.write(bytes)
    assert.equal(wire.sent.length, 1)
    for (let count = 0; count < 3; count++) wire.writeAll()
    assert.deepEqual(
      wire.sent.map((message) => message.length),
      [MAX_TRANSPORT_MESSAGE_BYTES, MAX_TRANSPORT_MESSAGE_BYTES, 1],
    )
    stream.destroy()
  })

  test('holds the other side back until somebody reads', () => {
    const { wire, stream } = open()
    const chunk = Buffer.alloc(MAX_TRANSPORT_MESSAGE_BYTES)
    wire.emit('message', chunk, true)
    assert.ok(wire.isPaused)
    assert.equal((stream.read() as Buffer).length, chunk.length)
    assert.ok(!wire.isPaused)
    stream.destroy()
  })

  test('is lost when it closes before both ways have ended', async () => {
    for (const before of [[], [[Buffer.from(TRANSPORT_END), false]], [[Buffer.from('x'), true]]]) {
      const { wire, stream } = open()
      for (const message of before) wire.emit('message', ...message)
      const mayEnd = before.some(([, isBinary]) => !isBinary)
      const closed = once(stream, 'close')
      stream.on('end', () => assert.ok(mayEnd))
      stream.resume()
      wire.emit('close')
      await closed
      assert.equal(wire.ended, 'terminated')
    }
  })

  test('takes nothing that it does not know, and nothing after the end', async () => {
    const end = [Buffer.from(TRANSPORT_END), false] as const
    const wrong = [
      [[Buffer.from('END'), false]],
      [[Buffer.from(''), false]],
      [end, [Buffer.from('more'), true]],
      [end, end],
    ] as const
    for (const messages of wrong) {
      const { wire, stream } = open()
      const closed = once(stream, 'close')
      for (const message of messages) wire.emit('message', ...message)
      await closed
      assert.equal(wire.ended, 'terminated')
    }
  })
})
