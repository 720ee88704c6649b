import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { after, afterEach, describe, test } from 'node:test'
import { openTcp } from './open-tcp.ts'

const PLACE = { host: 'edge.mycorp.test', port: 8443 }
const NAME = Buffer.from(PLACE.host)
const REQUEST = Buffer.concat([Buffer.from([5, 1, 0, 3, NAME.length]), NAME, Buffer.from([0x20, 0xfb])])
const LOGIN = Buffer.from('\x01\x03ann\x02pw', 'latin1')
const CONNECTED = Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])

const sockets = new Set<Socket>()
const servers = new Set<net.Server>()
afterEach(() => delete process.env.POSTERN_PROXY)
after(() => {
  for (const socket of sockets) socket.destroy()
  for (const server of servers) server.close()
})

/** A SOCKS proxy that has learned by heart what it is asked and what it answers. */
async function startProxy(...script: readonly (readonly [asked: Buffer, answer: Buffer])[]): Promise<string> {
  const server = net.createServer(async (socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    for (const [asked, answer] of script) {
      let heard = Buffer.alloc(0)
      while (heard.length < asked.length) heard = Buffer.concat([heard, (await once(socket, 'data'))[0]])
      assert.deepEqual(heard, asked)
      socket.write(answer)
    }
    socket.pipe(socket)
  })
  servers.add(server.listen(0, '127.0.0.1'))
  await once(server, 'listening')
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

describe('a SOCKS proxy', () => {
  test('is asked by name, and carries bytes from then on', async () => {
    process.env.POSTERN_PROXY = `socks5://${await startProxy([Buffer.from([5, 1, 0]), Buffer.from([5, 0])], [REQUEST, CONNECTED])}`
    const socket = await openTcp(PLACE)
    socket.write('hello')
    assert.equal(String((await once(socket, 'data'))[0]), 'hello')
    socket.destroy()
  })

  test('gets name and password when it wants them', async () => {
    const offer = [Buffer.from([5, 2, 0, 2]), Buffer.from([5, 2])] as const
    process.env.POSTERN_PROXY = `socks5://ann:pw@${await startProxy(offer, [LOGIN, Buffer.from([1, 0])], [REQUEST, CONNECTED])}`
    const socket = await openTcp(PLACE)
    socket.destroy()
    process.env.POSTERN_PROXY = `socks5://ann:pw@${await startProxy(offer, [LOGIN, Buffer.from([1, 1])])}`
    await assert.rejects(openTcp(PLACE), { code: 'PROXY_LOGIN_REQUIRED', message: /does not accept/ })
    process.env.POSTERN_PROXY = `socks5://${await startProxy([Buffer.from([5, 1, 0]), Buffer.from([5, 255])])}`
    await assert.rejects(openTcp(PLACE), { code: 'PROXY_LOGIN_REQUIRED', message: /wants a user name/ })
  })

  test('says no in its own words, or something that no proxy says', async () => {
    const begin = [Buffer.from([5, 1, 0]), Buffer.from([5, 0])] as const
    const sentences = ['it failed', 'rules', 'no route', 'cannot be reached', 'nothing listens', 'not answer']
    const all = [...sentences, 'makes no connections', 'looks up no names', 'it answered 9']
    for (const [index, sentence] of all.entries()) {
      const refusal = Buffer.from([5, index + 1, 0, 1, 0, 0, 0, 0, 0, 0])
      process.env.POSTERN_PROXY = `socks5://${await startProxy(begin, [REQUEST, refusal])}`
      await assert.rejects(openTcp(PLACE), { code: 'PROXY_REFUSED', message: new RegExp(sentence) })
    }
    process.env.POSTERN_PROXY = `socks5://${await startProxy([Buffer.from([5, 1, 0]), Buffer.from([5, 2])])}`
    await assert.rejects(openTcp(PLACE), { code: 'PROXY_INVALID', message: /nobody offered/ })
    process.env.POSTERN_PROXY = `socks5://${await startProxy([Buffer.from([5, 1, 0]), Buffer.from('HTTP')])}`
    await assert.rejects(openTcp(PLACE), { code: 'PROXY_INVALID' })
    const more = Buffer.concat([CONNECTED, Buffer.from('x')])
    process.env.POSTERN_PROXY = `socks5://${await startProxy(begin, [REQUEST, more])}`
    await assert.rejects(openTcp(PLACE), { code: 'PROXY_INVALID', message: /says more/ })
  })

  test('is left alone when nobody waits any more', async () => {
    process.env.POSTERN_PROXY = `socks5://${await startProxy([Buffer.from([5, 1, 0]), Buffer.alloc(0)])}`
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    await assert.rejects(openTcp(PLACE, { signal }), reason)
  })
})
