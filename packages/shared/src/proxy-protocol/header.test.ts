import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MAX_PROXY_BODY_BYTES, readProxyHeader, writeLocalHeader, writeProxyHeader } from './header.ts'

const V4 = [
  { host: '203.0.113.7', port: 50_514 },
  { host: '198.51.100.1', port: 443 },
] as const
const V6 = [
  { host: '2001:db8::7', port: 1 },
  { host: '2001:db8::1', port: 65_535 },
] as const
const VALUES = [
  { type: 0xe5, value: Buffer.from('who') },
  { type: 0x04, value: Buffer.alloc(0) },
]

test('the bytes are those of the specification', () => {
  assert.equal(
    writeProxyHeader(...V4).toString('hex'),
    '0d0a0d0a000d0a515549540a' + '2111' + '000c' + 'cb007107' + 'c6336401' + 'c552' + '01bb',
  )
  assert.equal(writeLocalHeader().toString('hex'), '0d0a0d0a000d0a515549540a' + '2000' + '0000')
})

test('what is written is read again, whatever follows it', () => {
  for (const [source, destination] of [V4, V6]) {
    for (const values of [[], VALUES]) {
      const bytes = writeProxyHeader(source, destination, values)
      const header = readProxyHeader(Buffer.concat([bytes, Buffer.from('\x16\x03\x01')]))
      assert.deepEqual(header, { command: 'proxy', source, destination, values, length: bytes.length })
    }
  }
  assert.deepEqual(readProxyHeader(writeLocalHeader()), { command: 'local', length: 16 })
})

test('an IPv4 address of a listener for both kinds is one; of two kinds both are IPv6 on the wire', () => {
  const [source, destination] = V4
  const asV6 = { ...source, host: `::ffff:${source.host}` }
  assert.deepEqual(writeProxyHeader(asV6, destination), writeProxyHeader(source, destination))
  const mixed = readProxyHeader(writeProxyHeader(source, V6[1]))
  assert.deepEqual(mixed, { command: 'proxy', source, destination: V6[1], values: [], length: 52 })
})

test('waits for more at every cut, and never for what cannot become one', () => {
  const bytes = writeProxyHeader(...V6, VALUES)
  for (let cut = 0; cut < bytes.length; cut++)
    assert.equal(readProxyHeader(bytes.subarray(0, cut)), 'incomplete')
})

const altered = (at: number, value: number, from = writeProxyHeader(...V4, VALUES)) => {
  const bytes = Buffer.from(from)
  bytes[at] = value
  return bytes
}

test('refuses what is none', () => {
  const long = altered(14, (MAX_PROXY_BODY_BYTES + 1) >> 8)
  long[15] = (MAX_PROXY_BODY_BYTES + 1) & 0xff
  const cases: [string, Buffer][] = [
    ['TLS', Buffer.from('16030100', 'hex')],
    ['version 1', Buffer.from('PROXY TCP4 203.0.113.7 198.51.100.1 50514 443\r\n')],
    ...Array.from({ length: 12 }, (_, at): [string, Buffer] => [`signature ${at}`, altered(at, 0xff)]),
    ['version 1 in binary', altered(12, 0x11)],
    ['an unknown command', altered(12, 0x22)],
    ['no protocol', altered(13, 0x00)],
    ['UDP', altered(13, 0x12)],
    ['a socket', altered(13, 0x31)],
    ['a body too short for its addresses', altered(15, 11)],
    ['IPv6 in the room of IPv4', altered(13, 0x21)],
    ['a body that is too long', long],
    ['only the beginning of one that is too long', long.subarray(0, 16)],
    ['a value longer than the body', altered(16 + 12 + 2, 200)],
    ['a value of two bytes', altered(15, 12 + 2)],
    ['too many values', writeProxyHeader(...V4, Array(65).fill(VALUES[1]))],
  ]
  for (const [what, bytes] of cases) assert.equal(readProxyHeader(bytes), 'malformed', what)
})

test('writes no header that it would not read', () => {
  const value = Buffer.alloc(MAX_PROXY_BODY_BYTES)
  assert.throws(() => writeProxyHeader(...V4, [{ type: 0xe5, value }]), RangeError)
})
