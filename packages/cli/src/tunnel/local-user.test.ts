import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { endianness } from 'node:os'
import { test } from 'node:test'
import { findLocalUser, isLoopback } from './local-user.ts'

const HEADER =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n'

function row(addresses: string, uid: number, inode: number, state = '01'): string {
  return `   0: ${addresses} ${state} 00000000:00000000 00:00000000 00000000 ${String(uid).padStart(5)}        0 ${inode} 1 0\n`
}

const PEER = { address: '127.0.0.1', port: 0xd431 }
const HERE = { address: '127.0.0.1', port: 0x1538 }

test('the row of the other end counts, not our own and not a neighbour', () => {
  assert.equal(endianness(), 'LE', 'the rows below are of a machine like that')
  const list =
    HEADER +
    row('0100007F:1538 0100007F:D431', 1, 11) +
    row('0100007F:D431 0100007F:1538', 1000, 12) +
    row('0100007F:D431 0100007F:1539', 2, 13)
  assert.equal(
    findLocalUser(PEER, HERE, () => [list, '']),
    1000,
  )
  assert.equal(
    findLocalUser({ ...PEER, port: 1 }, HERE, () => [list, '']),
    undefined,
  )
})

test('a program that uses one socket for IPv4 and IPv6 stands in the other list', () => {
  const mapped = '0000000000000000FFFF00000100007F'
  const list = HEADER + row(`${mapped}:D431 ${mapped}:1538`, 1000, 12)
  assert.equal(
    findLocalUser(PEER, HERE, () => [HEADER, list]),
    1000,
  )
  const asSeen = { ...PEER, address: '::ffff:127.0.0.1' }
  assert.equal(
    findLocalUser(asSeen, { ...HERE, address: '::ffff:127.0.0.1' }, () => [HEADER, list]),
    1000,
  )
})

test('IPv6', () => {
  const one = '00000000000000000000000001000000'
  const list = HEADER + row(`${one}:D431 ${one}:1538`, 1000, 12)
  const [peer, here] = [PEER, HERE].map((end) => ({ ...end, address: '::1' }))
  assert.equal(
    findLocalUser(peer!, here!, () => [HEADER, list]),
    1000,
  )
})

test('what is not certain is nobody: gone sockets, which the kernel gives to root, and two rows', () => {
  const addresses = '0100007F:D431 0100007F:1538'
  assert.equal(
    findLocalUser(PEER, HERE, () => [HEADER + row(addresses, 0, 0)]),
    undefined,
  )
  assert.equal(
    findLocalUser(PEER, HERE, () => [HEADER + row(addresses, 0, 12)]),
    0,
  )
  const twice = HEADER + row(addresses, 1000, 12) + row(addresses, 1000, 13)
  assert.equal(
    findLocalUser(PEER, HERE, () => [twice]),
    undefined,
  )
  assert.equal(
    findLocalUser(PEER, HERE, () => ['', '']),
    undefined,
  )
})

test('who is not listed is looked for once more, and who stands there twice is one', () => {
  const addresses = '0100007F:D431 0100007F:1538'
  let looks = 0
  const reading = (...lists: string[]) => {
    looks = 0
    return () => [lists[looks++] ?? '']
  }
  assert.equal(findLocalUser(PEER, HERE, reading(HEADER, HEADER + row(addresses, 1000, 12))), 1000)
  assert.equal(findLocalUser(PEER, HERE, reading(HEADER + row(addresses, 1000, 12).repeat(2))), 1000)
  assert.equal(looks, 1)
  assert.equal(findLocalUser(PEER, HERE, reading(HEADER, HEADER)), undefined)
  assert.equal(looks, 2)
  const gone = row(addresses, 0, 0, '06')
  assert.equal(
    findLocalUser(PEER, HERE, reading(HEADER + gone, HEADER + row(addresses, 1000, 12))),
    undefined,
  )
  assert.equal(looks, 1, 'it was there, and is nobody’s')
})

test('a socket that was closed with bytes on the way is somebody where the kernel remembers', () => {
  const closed = (uid: number, state: string) => HEADER + row('0100007F:D431 0100007F:1538', uid, 0, state)
  const find = (list: string, kernel: string) => findLocalUser(PEER, HERE, () => [list], kernel)
  for (const kernel of ['6.18.0', '6.18.44-fc', '7.0']) {
    assert.equal(find(closed(1000, '04'), kernel), 1000)
    assert.equal(find(closed(0, '04'), kernel), 0)
    for (const state of ['05', '06']) assert.equal(find(closed(0, state), kernel), undefined, state)
  }
  // root may be anybody there
  for (const kernel of ['6.17.9', '6.1.0-37-amd64', '5.99', '']) {
    assert.equal(find(closed(0, '04'), kernel), undefined, kernel)
  }
})

for (const [address, listen] of [
  ['127.0.0.1', '127.0.0.1'],
  ['::1', '::1'],
  ['127.0.0.1', '::'],
] as const) {
  test(`the real list names us: ${address} to a server on ${listen}`, async () => {
    const server = net.createServer().listen(0, listen)
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const client = net.connect(port, address)
    const [socket] = (await once(server, 'connection')) as [Socket]
    const peer = { address: socket.remoteAddress!, port: socket.remotePort! }
    const here = { address: socket.localAddress!, port: socket.localPort! }
    assert.equal(findLocalUser(peer, here), process.geteuid!())
    client.destroy()
    socket.destroy()
    server.close()
  })
}

test('loopback, in all its spellings, and nothing else', () => {
  for (const address of ['127.0.0.1', '127.8.9.1', '::1', '::ffff:127.0.0.1']) assert.ok(isLoopback(address))
  for (const address of ['0.0.0.0', '::', '10.0.0.1', '192.0.2.127', '::ffff:10.0.0.1', '1127.0.0.1']) {
    assert.ok(!isLoopback(address), address)
  }
})
