import assert from 'node:assert/strict'
import { readConnectAnswer } from '../packages/cli/src/network/http-proxy.ts'
import type { ReadAnswer } from '../packages/cli/src/network/proxy-talk.ts'
import { readConnectReply, readLoginResult, readMethod } from '../packages/cli/src/network/socks-proxy.ts'
import { mutateBytes } from './mutate.ts'
import type { Target } from './target.ts'

/** What stands between a person and the edge may say anything. */

interface Reader {
  read(bytes: Buffer): ReadAnswer<number>
  samples: Buffer[]
  maxBytes: number
}

const READERS: readonly Reader[] = [
  {
    read: readConnectAnswer,
    samples: [
      'HTTP/1.1 200 Connection established\r\n\r\n',
      'HTTP/1.0 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 4\r\n\r\nno\r\n',
      `HTTP/1.1 502 Bad\r\n${'Via: 1.1 proxy\r\n'.repeat(90)}\r\n`,
    ].map((text) => Buffer.from(text)),
    maxBytes: 16_384,
  },
  { read: readMethod, samples: [Buffer.from([5, 0]), Buffer.from([5, 255])], maxBytes: 2 },
  { read: readLoginResult, samples: [Buffer.from([1, 0])], maxBytes: 2 },
  {
    read: readConnectReply,
    samples: [
      Buffer.from([5, 0, 0, 1, 127, 0, 0, 1, 1, 187]),
      Buffer.from([5, 5, 0, 4, ...Array(18).fill(0)]),
      Buffer.from([5, 0, 0, 3, 3, 97, 98, 99, 1, 187]),
    ],
    maxBytes: 262,
  },
]

export const COMPANY_PROXY_TARGET: Target = {
  name: 'proxy-answers',
  cases: 400_000,
  run(random) {
    const { read, samples, maxBytes } = READERS[random.below(READERS.length)]!
    const bytes = Buffer.from(mutateBytes(samples[random.below(samples.length)]!, random))
    const whole = read(bytes)
    if (typeof whole !== 'string') assert.ok(whole.bytes <= bytes.length && Number.isInteger(whole.answer))
    if (whole === 'incomplete') assert.ok(bytes.length <= maxBytes, 'it would be read for ever')
    // more bytes never change an answer or a refusal
    const earlier = read(bytes.subarray(0, random.below(bytes.length + 1)))
    if (whole === 'incomplete') assert.equal(earlier, 'incomplete')
    else if (earlier === 'malformed') assert.equal(whole, 'malformed')
    else if (earlier !== 'incomplete') assert.equal(answerOf(earlier), answerOf(whole))
  },
}

function answerOf(result: ReadAnswer<number>): number | string {
  return typeof result === 'string' ? result : result.answer
}
