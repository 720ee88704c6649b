import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readConnectAnswer } from './http-proxy.ts'
import type { ReadAnswer } from './proxy-talk.ts'
import { readConnectReply, readLoginResult, readMethod } from './socks-proxy.ts'

/** What stands at each length of a whole answer. */
function assertRead(read: (bytes: Buffer) => ReadAnswer<number>, whole: Buffer, answer: number): void {
  for (let length = 0; length < whole.length; length++) {
    assert.equal(read(whole.subarray(0, length)), 'incomplete', `${length} of ${whole.length} bytes`)
  }
  assert.deepEqual(read(whole), { answer, bytes: whole.length })
}

describe('an answer to CONNECT', () => {
  const read = (text: string) => readConnectAnswer(Buffer.from(text, 'latin1'))

  test('is its status, whatever its headers say', () => {
    assertRead(readConnectAnswer, Buffer.from('HTTP/1.0 200 Connection established\r\n\r\n'), 200)
    assertRead(readConnectAnswer, Buffer.from('HTTP/1.1 204\r\nContent-Length: 9\r\n\r\n'), 204)
    assert.deepEqual(read('HTTP/1.1 200 OK\r\n\r\nmore'), { answer: 200, bytes: 19 })
    // the page of a refusal is not read
    for (const status of [301, 403, 407, 502]) {
      const page = `HTTP/1.1 ${status} No\r\nContent-Type: text/html\r\n\r\n<html>`
      assert.deepEqual(read(page), { answer: status, bytes: page.length })
    }
  })

  test('is nothing else', () => {
    const wrong = [
      'SSH-2.0-OpenSSH_9.2\r\n',
      '<html>',
      '\x05\x00',
      'HTTP/2 200\r\n\r\n',
      'HTTP/1.1 100 Continue\r\n\r\n',
      'HTTP/1.1 2000\r\n\r\n',
      'HTTP/1.1 ok\r\n\r\n',
      `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(100)}\r\n`,
      `HTTP/1.1 200 ${'x'.repeat(16_384)}`,
      `HTTP/1.1 200 ${'x'.repeat(16_384)}\r\n\r\n`,
    ]
    for (const text of wrong) assert.equal(read(text), 'malformed', text.slice(0, 40))
  })
})

describe('answers of a SOCKS proxy', () => {
  test('are read to their end', () => {
    assertRead(readMethod, Buffer.from([5, 2]), 2)
    assertRead(readLoginResult, Buffer.from([1, 0]), 0)
    assertRead(readConnectReply, Buffer.from([5, 0, 0, 1, 127, 0, 0, 1, 1, 187]), 0)
    assertRead(readConnectReply, Buffer.from([5, 4, 0, 4, ...Array(18).fill(1)]), 4)
    assertRead(readConnectReply, Buffer.from([5, 0, 0, 3, 2, 97, 98, 1, 187]), 0)
    assert.deepEqual(readMethod(Buffer.from([5, 0, 7])), { answer: 0, bytes: 2 })
  })

  test('are nothing else', () => {
    assert.equal(readMethod(Buffer.from('HTTP/1.1')), 'malformed')
    assert.equal(readMethod(Buffer.from([4])), 'malformed')
    assert.equal(readLoginResult(Buffer.from([5, 0])), 'malformed')
    assert.equal(readConnectReply(Buffer.from([4])), 'malformed')
    assert.equal(readConnectReply(Buffer.from([5, 0, 1])), 'malformed')
    assert.equal(readConnectReply(Buffer.from([5, 0, 0, 2])), 'malformed')
  })
})
