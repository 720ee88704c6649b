import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import tls from 'node:tls'
import { peekClientHello } from './client-hello.ts'

interface Vector {
  client: string
  serverName: string | null
  alpn: string[]
  hex: string
}

const VECTORS: Vector[] = JSON.parse(
  readFileSync(new URL('../../vectors/client-hello.json', import.meta.url), 'utf8'),
)
const bytesOf = ({ hex }: Vector) => Buffer.from(hex, 'hex')
const helloOf = ({ serverName, alpn }: Vector) => ({ serverName: serverName ?? undefined, alpn })

/** The same handshake bytes in records of at most `size` bytes. */
function inRecordsOf(size: number, hello: Buffer): Buffer {
  const handshake = hello.subarray(5)
  const records: Buffer[] = []
  for (let at = 0; at < handshake.length; at += size) {
    const part = handshake.subarray(at, at + size)
    records.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 0xff]), part)
  }
  return Buffer.concat(records)
}

const u16 = (value: number) => Buffer.from([value >> 8, value & 0xff])
const withLength = (body: Buffer) => Buffer.concat([u16(body.length), body])
const extension = (type: number, body: Buffer) => Buffer.concat([u16(type), withLength(body)])
const nameEntry = (name: string, type = 0) => Buffer.concat([Buffer.of(type), withLength(Buffer.from(name))])
const serverName = (...entries: Buffer[]) => extension(0, withLength(Buffer.concat(entries)))
const alpn = (...names: string[]) =>
  extension(
    16,
    withLength(Buffer.concat(names.map((n) => Buffer.concat([Buffer.of(n.length), Buffer.from(n)])))),
  )

/** A ClientHello with these extensions; undefined leaves the block out, as before TLS 1.2. */
function makeHello(extensions: Buffer[] | undefined, trailing: Buffer = Buffer.alloc(0)): Buffer {
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32, 7),
    Buffer.of(0),
    withLength(Buffer.from([0x13, 0x01])),
    Buffer.from([1, 0]),
    ...(extensions ? [withLength(Buffer.concat(extensions))] : []),
    trailing,
  ])
  const handshake = Buffer.concat([Buffer.of(1, body.length >> 16), u16(body.length & 0xffff), body])
  return inRecordsOf(16_384, Buffer.concat([Buffer.alloc(5), handshake]))
}

describe('ClientHello', () => {
  for (const vector of VECTORS) {
    it(`of ${vector.client}`, () => {
      assert.deepEqual(peekClientHello(bytesOf(vector)), helloOf(vector))
    })

    it(`of ${vector.client}: every shorter piece is incomplete`, () => {
      const bytes = bytesOf(vector)
      for (let length = 0; length < bytes.length; length++) {
        assert.equal(peekClientHello(bytes.subarray(0, length)), 'incomplete', `${length} bytes`)
      }
    })

    it(`of ${vector.client}: over several records, whatever follows`, () => {
      for (const size of [30, 100, 512]) {
        const records = inRecordsOf(size, bytesOf(vector))
        assert.deepEqual(peekClientHello(records), helloOf(vector))
        assert.equal(peekClientHello(records.subarray(0, -1)), 'incomplete')
        assert.deepEqual(peekClientHello(Buffer.concat([records, Buffer.alloc(50, 0xff)])), helloOf(vector))
      }
    })
  }

  it('in hundreds of tiny records is nobody’s: reading it again and again would cost too much', () => {
    assert.equal(peekClientHello(inRecordsOf(1, bytesOf(VECTORS[0]!))), 'malformed')
  })

  it('of this Node, live', async () => {
    const server = net.createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const client = tls.connect({
      port,
      host: '127.0.0.1',
      servername: 'a.edge.test',
      ALPNProtocols: ['postern/1'],
    })
    client.on('error', () => {})
    const [socket] = (await once(server, 'connection')) as [net.Socket]
    let bytes = Buffer.alloc(0)
    let hello = peekClientHello(bytes)
    while (hello === 'incomplete') {
      const [chunk] = (await once(socket, 'data')) as [Buffer]
      bytes = Buffer.concat([bytes, chunk])
      hello = peekClientHello(bytes)
    }
    assert.deepEqual(hello, { serverName: 'a.edge.test', alpn: ['postern/1'] })
    assert.ok(bytes.length > 1_200, 'a post-quantum key share is over 1 kB')
    client.destroy()
    socket.destroy()
    server.close()
  })

  const name = nameEntry('a.edge.test')
  const cases: [string, Buffer, unknown][] = [
    ['no extensions at all', makeHello(undefined), { serverName: undefined, alpn: [] }],
    ['an empty extension block', makeHello([]), { serverName: undefined, alpn: [] }],
    [
      'upper case',
      makeHello([serverName(nameEntry('A.Edge.TEST'))]),
      { serverName: 'a.edge.test', alpn: [] },
    ],
    [
      'several ALPN names',
      makeHello([alpn('h2', 'postern/1')]),
      { serverName: undefined, alpn: ['h2', 'postern/1'] },
    ],
    ['two server names', makeHello([serverName(name, nameEntry('b.edge.test'))]), 'malformed'],
    ['the same extension twice', makeHello([serverName(name), serverName(name)]), 'malformed'],
    [
      'an unknown extension twice',
      makeHello([extension(0x1234, name), extension(0x1234, name)]),
      'malformed',
    ],
    ['another name type', makeHello([serverName(nameEntry('a.edge.test', 1))]), 'malformed'],
    ['an empty server name', makeHello([serverName(nameEntry(''))]), 'malformed'],
    ['a server name with NUL', makeHello([serverName(nameEntry('a.edge.test\0.evil'))]), 'malformed'],
    ['a server name with a space', makeHello([serverName(nameEntry('a .test'))]), 'malformed'],
    ['a server name beyond ASCII', makeHello([serverName(nameEntry('ä.test'))]), 'malformed'],
    ['a server name of 254 characters', makeHello([serverName(nameEntry('a'.repeat(254)))]), 'malformed'],
    ['an empty name list', makeHello([serverName()]), 'malformed'],
    ['a name list that is cut', makeHello([extension(0, Buffer.from([0, 9, 0]))]), 'malformed'],
    ['an empty ALPN name', makeHello([alpn('')]), 'malformed'],
    ['33 ALPN names', makeHello([alpn(...Array(33).fill('x'))]), 'malformed'],
    [
      '32 ALPN names',
      makeHello([alpn(...Array(32).fill('x'))]),
      { serverName: undefined, alpn: Array(32).fill('x') },
    ],
    ['bytes after the extensions', makeHello([serverName(name)], Buffer.of(0)), 'malformed'],
    [
      'an extension block that is longer than the message',
      makeHello(undefined, Buffer.from([0, 9])),
      'malformed',
    ],
    ['HTTP in the clear', Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'malformed'],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'), 'malformed'],
    ['an SSLv2 hello', Buffer.from('802e010301001500000010', 'hex'), 'malformed'],
    ['an alert record', Buffer.from([21, 3, 1, 0, 2, 2, 40]), 'malformed'],
    ['a ServerHello', Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0]), 'malformed'],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0]), 'malformed'],
    ['a record of 16,385 bytes', Buffer.from([22, 3, 1, 0x40, 0x01]), 'malformed'],
    ['a major version that is not 3', Buffer.from([22, 2]), 'malformed'],
    ['nothing', Buffer.alloc(0), 'incomplete'],
    [
      'a hello of 16 MB that has only begun',
      Buffer.from([22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]),
      'incomplete',
    ],
  ]
  for (const [what, bytes, expected] of cases) {
    it(what, () => assert.deepEqual(peekClientHello(bytes), expected))
  }

  it('a huge one, over many records', () => {
    const padding = extension(21, Buffer.alloc(60_000))
    assert.deepEqual(peekClientHello(makeHello([padding, serverName(name)])), {
      serverName: 'a.edge.test',
      alpn: [],
    })
  })
})
