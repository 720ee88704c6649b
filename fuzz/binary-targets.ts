import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import {
  ErrorFrame,
  HelloFrame,
  OkFrame,
  OpenFrame,
  readFrameBody,
} from '@postern/shared/protocol/control-frames'
import { readErrorFrame } from '@postern/shared/protocol/error-frame'
import {
  dataHeader,
  END_FRAME,
  encodeControl,
  FRAME,
  FrameDecoder,
  MAX_CONTROL_BYTES,
} from '@postern/shared/protocol/frames'
import type * as v from 'valibot'
import { type ClientHello, type PeekResult, peekClientHello } from '../packages/edge/src/flow/client-hello.ts'
import { mutateBytes, mutateText } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

const HELLOS: Buffer[] = JSON.parse(
  readFileSync(new URL('../packages/edge/vectors/client-hello.json', import.meta.url), 'utf8'),
).map(({ hex }: { hex: string }) => Buffer.from(hex, 'hex'))
const WHOLE = HELLOS.map((bytes) => peekClientHello(bytes))

const peek: Target = {
  name: 'client-hello',
  cases: 1_000_000,
  run(random) {
    const which = random.below(HELLOS.length)
    const original = HELLOS[which]!
    if (random.oneIn(8)) {
      const bytes = inRecords(original, random)
      assertSameHello(peekClientHello(bytes), WHOLE[which]!)
      assert.equal(
        peekClientHello(bytes.subarray(0, random.below(bytes.length))),
        'incomplete',
        'a cut hello',
      )
      return
    }
    const bytes = mutateBytes(random.oneIn(4) ? inRecords(original, random) : original, random)
    const result = peekClientHello(bytes)
    if (typeof result !== 'string') assertPlausible(result)
    // more bytes never change an answer, fewer never make one
    const earlier = peekClientHello(bytes.subarray(0, random.below(bytes.length + 1)))
    if (result === 'incomplete') assert.equal(earlier, 'incomplete')
    else if (earlier !== 'incomplete') assertSameHello(earlier, result)
  },
}

/** The same handshake in records of other sizes, never more than are accepted. */
function inRecords(hello: Buffer, random: Random): Buffer {
  const handshake = hello.subarray(5)
  const least = Math.ceil(handshake.length / 60)
  const parts: Buffer[] = []
  for (let at = 0; at < handshake.length; ) {
    const part = handshake.subarray(at, at + least + random.below(600))
    parts.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 0xff]), part)
    at += part.length
  }
  return Buffer.concat(parts)
}

function assertPlausible({ serverName, alpn }: ClientHello): void {
  assert.ok(serverName === undefined || /^[a-z0-9._-]{1,253}$/.test(serverName), `server name ${serverName}`)
  assert.ok(alpn.length <= 32 && alpn.every((name) => name.length > 0 && name.length < 256), 'ALPN names')
}

function assertSameHello(one: PeekResult, other: PeekResult): void {
  assert.equal(describeHello(one), describeHello(other))
}

function describeHello(result: PeekResult): string {
  return typeof result === 'string' ? result : `${result.serverName} ${result.alpn.join('\0')}`
}

const frames: Target = {
  name: 'frames',
  cases: 1_000_000,
  run(random) {
    const sent = writeConversation(random)
    const bytes = random.oneIn(3) ? sent.bytes : Buffer.from(mutateBytes(sent.bytes, random))
    const whole = decode([bytes])
    if (bytes === sent.bytes) assert.equal(whole, sent.heard)
    assert.equal(decode(inPieces(bytes, random)), whole, 'in pieces it is heard differently')
  },
}

/** What a decoder hears, as text: neighbouring pieces of data joined, and at the end why it refused, if it did. */
function decode(chunks: Iterable<Buffer>): string {
  let heard = ''
  let isData = false
  const decoder = new FrameDecoder({
    data(bytes) {
      if (!isData) heard += ' data:'
      isData = true
      heard += bytes.toString('latin1')
    },
    end() {
      isData = false
      heard += ' end'
    },
    control(type, body) {
      isData = false
      heard += ` ${type}:${JSON.stringify(body)}`
    },
  })
  try {
    for (const chunk of chunks) decoder.push(chunk)
  } catch (error) {
    const { code, message } = error as Error & { code?: string }
    assert.equal(code, 'PROTOCOL_INVALID', String(error))
    heard += ` refused:${message}`
  }
  return heard
}

const LETTERS = Buffer.from('abcdefghijklmnopqrstuvwxyz'.repeat(150))

function writeConversation(random: Random): { bytes: Buffer; heard: string } {
  const parts: Buffer[] = []
  let heard = ''
  let isData = false
  for (let count = 1 + random.below(5); count > 0; count--) {
    const from = random.below(64)
    const payload = LETTERS.subarray(from, from + random.below(random.oneIn(50) ? 3_000 : 30))
    const kind = random.below(4)
    if (kind === 0) {
      parts.push(dataHeader(payload.length), payload)
      if (payload.length === 0) continue
      heard += `${isData ? '' : ' data:'}${payload.toString('latin1')}`
      isData = true
    } else if (kind === 1) {
      parts.push(END_FRAME)
      heard += ' end'
      isData = false
    } else if (kind === 2) {
      const header = dataHeader(payload.length)
      header[0] = 7 + random.below(249) // of a later version
      parts.push(header, payload)
    } else {
      const type = random.of(['ok', 'error', 'hello', 'open'] as const)
      const body = { text: payload.toString() }
      parts.push(encodeControl(type, body))
      heard += ` ${type}:${JSON.stringify(body)}`
      isData = false
    }
  }
  return { bytes: Buffer.concat(parts), heard }
}

function* inPieces(bytes: Buffer, random: Random): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const piece = bytes.subarray(at, at + 1 + random.below(random.oneIn(2) ? 4 : 300))
    yield piece
    at += piece.length
  }
}

const BODIES = [
  [FRAME.hello, HelloFrame, { version: 1, attachmentId: 'b7a1' }],
  [
    FRAME.open,
    OpenFrame,
    {
      flowId: 'f1',
      serviceId: 'svc_1',
      identity: { id: 'id_1', email: 'ann@mycorp.com' },
      clientAddress: '[2001:db8::7]:50514',
    },
  ],
  [FRAME.ok, OkFrame, { flowId: 'f1' }],
  [FRAME.error, ErrorFrame, { code: 'SERVICE_REFUSED', message: 'the service refused', hint: 'start it' }],
] as const
const BODY_TEXTS = BODIES.map(([, , body]) => JSON.stringify(body))
const JSON_WORDS = [
  'null',
  'true',
  '1',
  '-1',
  '1e999',
  '""',
  '[]',
  '{}',
  '"a":',
  '"__proto__":{',
  '\\u0000',
  '\\ud800',
]

const bodies: Target = {
  name: 'open-frame',
  cases: 1_000_000,
  run(random) {
    const which = random.below(BODIES.length)
    const [type, schema] = BODIES[which]!
    const payload = Buffer.from(mutateText(BODY_TEXTS[which]!, random, JSON_WORDS))
    const header = dataHeader(payload.length)
    header[0] = type
    let body: unknown
    const decoder = new FrameDecoder({ data() {}, end() {}, control: (_type, heard) => (body = heard) })
    try {
      decoder.push(header)
      decoder.push(payload)
    } catch (error) {
      return assertProtocolInvalid(error)
    }
    assert.ok(payload.length <= MAX_CONTROL_BYTES)
    const read = readBody(schema, body)
    if (type === FRAME.error) assertErrorFrame(body, read !== undefined)
    if (read === undefined) return
    const text = JSON.stringify(read)
    assert.equal(JSON.stringify(readFrameBody(schema, JSON.parse(text), 'again')), text)
  },
}

function readBody(schema: v.GenericSchema, body: unknown): unknown {
  try {
    return readFrameBody(schema, body, 'fuzzed')
  } catch (error) {
    return assertProtocolInvalid(error)
  }
}

/** Two readers of one frame, the schema and one by hand: they take the same. */
function assertErrorFrame(body: unknown, isAccepted: boolean): void {
  try {
    readErrorFrame(body)
    assert.ok(isAccepted, 'the reader by hand takes what the schema refuses')
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error
    assertProtocolInvalid(error)
    assert.ok(!isAccepted, 'the reader by hand refuses what the schema takes')
  }
}

function assertProtocolInvalid(error: unknown): void {
  assert.equal((error as { code?: string }).code, 'PROTOCOL_INVALID', String(error))
}

export const BINARY_TARGETS: readonly Target[] = [peek, frames, bodies]
