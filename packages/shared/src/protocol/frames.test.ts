import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type ControlType,
  dataHeader,
  END_FRAME,
  encodeControl,
  FRAME,
  FrameDecoder,
  MAX_CONTROL_BYTES,
  MAX_PAYLOAD_BYTES,
} from './frames.ts'

type Event = ['data', string] | ['end'] | [ControlType, unknown]

/** Decodes chunks; neighbouring pieces of data are joined, because frame borders mean nothing to a flow. */
function decode(chunks: Iterable<Buffer>): Event[] {
  const events: Event[] = []
  const decoder = new FrameDecoder({
    data(bytes) {
      const last = events.at(-1)
      if (last?.[0] === 'data') last[1] += bytes.toString('latin1')
      else events.push(['data', bytes.toString('latin1')])
    },
    end: () => events.push(['end']),
    control: (type, body) => events.push([type, body]),
  })
  for (const chunk of chunks) decoder.push(chunk)
  return events
}

function data(text: string): Buffer {
  const payload = Buffer.from(text, 'latin1')
  return Buffer.concat([dataHeader(payload.length), payload])
}

function frame(type: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(4)
  header.writeUInt8(type, 0)
  header.writeUIntBE(payload.length, 1, 3)
  return Buffer.concat([header, payload])
}

const CONVERSATION = Buffer.concat([
  encodeControl('hello', { version: 1, attachmentId: 'a' }),
  encodeControl('open', { flowId: 'f', note: 'grüße' }),
  data(''),
  data('hello '),
  data('world'),
  encodeControl('ok', { flowId: 'f' }),
  frame(0x7f, Buffer.from('from a later version')),
  frame(0x00, Buffer.alloc(0)),
  data('!'),
  END_FRAME,
  encodeControl('error', { code: 'FLOW_CUT' }),
])

const HEARD: Event[] = [
  ['hello', { version: 1, attachmentId: 'a' }],
  ['open', { flowId: 'f', note: 'grüße' }],
  ['data', 'hello world'],
  ['ok', { flowId: 'f' }],
  ['data', '!'],
  ['end'],
  ['error', { code: 'FLOW_CUT' }],
]

test('the header is one byte of type and three of length, big endian', () => {
  assert.deepEqual([...dataHeader(0x010203)], [FRAME.data, 1, 2, 3])
  assert.deepEqual([...dataHeader(MAX_PAYLOAD_BYTES)], [FRAME.data, 0xff, 0xff, 0xff])
  assert.deepEqual([...END_FRAME], [FRAME.end, 0, 0, 0])
  assert.deepEqual([...encodeControl('ok', {})], [FRAME.ok, 0, 0, 2, 0x7b, 0x7d])
})

test('hears a conversation in one piece and skips frames of a later version', () => {
  assert.deepEqual(decode([CONVERSATION]), HEARD)
})

test('hears the same byte by byte', () => {
  assert.deepEqual(decode([...CONVERSATION].map((byte) => Buffer.of(byte))), HEARD)
})

test('hears the same when cut at any place', () => {
  for (let cut = 0; cut <= CONVERSATION.length; cut++) {
    assert.deepEqual(decode([CONVERSATION.subarray(0, cut), CONVERSATION.subarray(cut)]), HEARD)
  }
})

test('hands on data as it comes, without waiting for the whole frame', () => {
  const whole = data('abcdef')
  assert.deepEqual(decode([whole.subarray(0, 7)]), [['data', 'abc']])
})

test('refuses an end frame with a payload', () => {
  assert.throws(() => decode([frame(FRAME.end, Buffer.of(1))]), { code: 'PROTOCOL_INVALID' })
})

test('refuses a control frame that is not JSON', () => {
  assert.throws(() => decode([frame(FRAME.ok, Buffer.from('{'))]), { code: 'PROTOCOL_INVALID' })
  assert.throws(() => decode([frame(FRAME.ok, Buffer.alloc(0))]), { code: 'PROTOCOL_INVALID' })
})

test('refuses a control frame by its announced length, before its payload comes', () => {
  const header = frame(FRAME.open, Buffer.alloc(MAX_CONTROL_BYTES + 1)).subarray(0, 4)
  assert.throws(() => decode([header]), { code: 'PROTOCOL_INVALID' })
})

test('writes no control frame that the other side would refuse', () => {
  const largest = 'x'.repeat(MAX_CONTROL_BYTES - '{"a":""}'.length)
  assert.deepEqual(decode([encodeControl('ok', { a: largest })]), [['ok', { a: largest }]])
  assert.throws(() => encodeControl('ok', { a: `${largest}x` }), { code: 'PROTOCOL_INVALID' })
})

test('skips a long frame of a later version without keeping it', () => {
  const long = frame(0x42, Buffer.alloc(1_000_000))
  assert.deepEqual(decode([long, END_FRAME]), [['end']])
})
