import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readUsualKeysign } from './ssh-keysign.ts'
import { readUsualTls } from './tls.ts'

const HOST = ['--host', 'h.edge.example.com']
const UNUSUAL = [
  [],
  ['--port', '443'],
  [...HOST, '--help'],
  [...HOST, '--port', 'ssh'],
  [...HOST, '--edge', 'ftp://x'],
  [...HOST, 'more'],
]

test('reads what ssh passes, in its types', () => {
  const args = [...HOST, '--port', '8443', '--edge', 'https://edge.example.com', '--no-browser', '--batch']
  const expected = {
    host: HOST[1],
    port: 8443,
    edge: 'https://edge.example.com',
    browser: false,
    batch: true,
  }
  assert.partialDeepStrictEqual(readUsualTls(args), expected)
  const keysign = readUsualKeysign([...args, '--key-type', 'ecdsa', '--agent'])
  assert.partialDeepStrictEqual(keysign, { ...expected, keyType: 'ecdsa', agent: true })
})

test('leaves whatever else there is to the one that explains it', () => {
  for (const args of UNUSUAL) {
    assert.equal(readUsualTls(args), undefined, args.join(' '))
    assert.equal(readUsualKeysign(args), undefined, args.join(' '))
  }
  assert.equal(readUsualTls([...HOST, '--agent']), undefined, 'an option of the other command')
  assert.equal(readUsualKeysign([...HOST, '--key-type', 'dsa']), undefined)
})
