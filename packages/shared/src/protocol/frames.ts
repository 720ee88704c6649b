import { PosternError } from '../errors.ts'
import type { Lender } from '../stream/slab-reader.ts'

/** The data frames of `postern/1` (client ↔ edge) and `postern-data/1` (connector ↔ edge).
 *
 *  Every byte of such a connection, in both directions and until it ends, belongs to a frame:
 *
 *      type   u8      one of FRAME
 *      length u24     payload bytes, big endian, at most 16,777,215
 *      payload
 *
 *  | frame | type | payload                          | who sends it, when                                  |
 *  |-------|------|----------------------------------|-----------------------------------------------------|
 *  | data  | 0x01 | bytes of the flow                | both ends, any time after open                      |
 *  | end   | 0x02 | none                             | once per direction: all bytes of it have been sent  |
 *  | ok    | 0x03 | JSON { flowId }                  | connector → edge → client: the service answered     |
 *  | error | 0x04 | JSON { code, message?, hint? }   | the last frame of a direction that ends abnormally  |
 *  | hello | 0x05 | JSON { version, attachmentId }   | connector → edge, first frame of a data connection  |
 *  | open  | 0x06 | JSON { flowId, serviceId, … }    | edge → connector, turns a waiting connection into a flow |
 *
 *  A direction without its end frame was cut: a bare FIN, a `close_notify` and a reset all look alike to the
 *  reader, so only `end` proves that every byte arrived. An unknown type is skipped by its length (a later
 *  version may add frames that may be ignored); JSON payloads over MAX_CONTROL_BYTES end the connection. */
export const FRAME = { data: 0x01, end: 0x02, ok: 0x03, error: 0x04, hello: 0x05, open: 0x06 } as const

export const FRAME_HEADER_BYTES = 4
export const MAX_PAYLOAD_BYTES = 0xff_ffff
/** Bound of ok, error, hello and open: what a stranger may make us keep in memory. */
export const MAX_CONTROL_BYTES = 16 * 1024

/** ALPN protocol names (RFC 7301). */
export const ALPN_FLOW = 'postern/1'
export const ALPN_DATA = 'postern-data/1'

export type ControlType = 'ok' | 'error' | 'hello' | 'open'

const CONTROL_NAMES: Readonly<Record<number, ControlType>> = {
  [FRAME.ok]: 'ok',
  [FRAME.error]: 'error',
  [FRAME.hello]: 'hello',
  [FRAME.open]: 'open',
}

/** Header of a data frame for a payload of `length` bytes. */
export function dataHeader(length: number): Buffer {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  header.writeUInt32BE(((FRAME.data << 24) | length) >>> 0, 0)
  return header
}

export const END_FRAME: Buffer = Buffer.from([FRAME.end, 0, 0, 0])

/** A whole ok, error, hello or open frame. */
export function encodeControl(type: ControlType, body: object): Buffer {
  const payload = Buffer.from(JSON.stringify(body), 'utf8')
  if (payload.length > MAX_CONTROL_BYTES) {
    throw new PosternError('PROTOCOL_INVALID', `a ${type} frame of ${payload.length} bytes is too large`)
  }
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  header.writeUInt32BE(((FRAME[type] << 24) | payload.length) >>> 0, 0)
  return Buffer.concat([header, payload])
}

/** What a decoder hands on. `data` pieces are views into the chunk pushed: no copy, no reassembly. */
export interface FrameSink {
  data(bytes: Buffer, lender?: Lender): void
  end(): void
  control(type: ControlType, body: unknown): void
}

/** Turns chunks into frames. Keeps at most MAX_CONTROL_BYTES of a stranger's bytes. */
export class FrameDecoder {
  readonly #sink: FrameSink
  readonly #header: Buffer = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  #headerFilled = 0
  #type = 0
  /** Payload bytes of the current frame still to come; -1 while its header is incomplete. */
  #remaining = -1
  #control: Buffer[] = []

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** @throws PROTOCOL_INVALID control frame too large or not JSON, end frame with a payload */
  push(chunk: Buffer, lender?: Lender): void {
    let offset = 0
    while (offset < chunk.length) {
      if (this.#remaining < 0) {
        offset = this.#readHeader(chunk, offset)
        if (this.#remaining === 0) this.#finishFrame()
        continue
      }
      const take = Math.min(this.#remaining, chunk.length - offset)
      const piece = chunk.subarray(offset, offset + take)
      offset += take
      this.#remaining -= take
      if (this.#type === FRAME.data) this.#sink.data(piece, lender)
      else if (CONTROL_NAMES[this.#type]) this.#control.push(Buffer.from(piece))
      if (this.#remaining === 0) this.#finishFrame()
    }
  }

  #readHeader(chunk: Buffer, from: number): number {
    let offset = from
    while (this.#headerFilled < FRAME_HEADER_BYTES && offset < chunk.length) {
      this.#header[this.#headerFilled++] = chunk[offset++]!
    }
    if (this.#headerFilled < FRAME_HEADER_BYTES) return offset
    this.#headerFilled = 0
    this.#type = this.#header[0]!
    this.#remaining = this.#header.readUIntBE(1, 3)
    if (this.#type === FRAME.end && this.#remaining !== 0) {
      throw new PosternError('PROTOCOL_INVALID', 'an end frame carries a payload')
    }
    if (CONTROL_NAMES[this.#type] && this.#remaining > MAX_CONTROL_BYTES) {
      throw new PosternError('PROTOCOL_INVALID', `a control frame announces ${this.#remaining} bytes`)
    }
    return offset
  }

  #finishFrame(): void {
    this.#remaining = -1
    if (this.#type === FRAME.end) return this.#sink.end()
    const name = CONTROL_NAMES[this.#type]
    if (!name) return
    const payload = Buffer.concat(this.#control)
    this.#control = []
    this.#sink.control(name, parseJson(payload))
  }
}

function parseJson(payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString('utf8'))
  } catch (cause) {
    throw new PosternError('PROTOCOL_INVALID', 'a control frame is not JSON', { cause })
  }
}
