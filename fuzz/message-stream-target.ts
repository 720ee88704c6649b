import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { TRANSPORT_END } from '@postern/shared/protocol/transport'
import { type MessageSocket, MessageStream } from '@postern/shared/stream/message-stream'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** Messages of a WebSocket, in any order. */
export const MESSAGE_STREAM_TARGET: Target = {
  name: 'message-stream',
  cases: 20_000,
  run(random) {
    const wire = new Wire()
    const stream = new MessageStream(wire)
    const heard: Buffer[] = []
    let hasEnded = false
    stream.on('data', (bytes: Buffer) => heard.push(bytes))
    stream.on('end', () => {
      hasEnded = true
    })
    stream.on('error', (error) => assert.fail(`it says ${error.message}`))
    const messages = Array.from({ length: random.below(12) }, () => draw(random))
    for (const { data, isBinary } of messages) wire.emit('message', data, isBinary)
    const first = messages.findIndex(({ isBinary }) => !isBinary)
    const isEnd = first >= 0 && String(messages[first]!.data) === TRANSPORT_END
    const whole = first < 0 || (isEnd && first === messages.length - 1)
    assert.equal(stream.destroyed, !whole, 'closed by what it does not know, and by nothing else')
    const before = Buffer.concat(messages.slice(0, first < 0 ? undefined : first).map(({ data }) => data))
    const bytes = Buffer.concat(heard)
    assert.ok(
      before.subarray(0, bytes.length).equals(bytes),
      'other bytes than those that came before the end',
    )
    if (hasEnded) assert.ok(isEnd && bytes.equals(before), 'an end that nobody sent, or before its last byte')
    stream.destroy()
  },
}

function draw(random: Random): { data: Buffer; isBinary: boolean } {
  if (!random.oneIn(4)) return { data: Buffer.alloc(random.below(300), random.below(256)), isBinary: true }
  const text = random.oneIn(3) ? TRANSPORT_END.slice(0, random.below(4)) : TRANSPORT_END
  return { data: Buffer.from(text), isBinary: false }
}

class Wire extends EventEmitter implements MessageSocket {
  send(_data: Buffer | string, done: () => void): void {
    done()
  }
  pause(): void {}
  resume(): void {}
  close(): void {}
  terminate(): void {}
}
