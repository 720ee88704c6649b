import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { PosternError } from '../errors.ts'
import { END_FRAME, encodeControl } from '../protocol/frames.ts'
import type { FlowEnd } from './flow-end.ts'
import { FramedEnd } from './framed-end.ts'
import { RawEnd } from './raw-end.ts'
import { resetSocket } from './reset-socket.ts'
import { type ConnectPair, connectTcp, connectTls } from './socket-pair.test-support.ts'
import { type SpliceOptions, splice, type Traffic } from './splice.ts'

/** Two hops as in a real flow, over real sockets:
 *
 *      person ─ raw │ near splice │ framed ─ link ─ framed │ far splice │ raw ─ service
 */
interface Flow {
  person: Socket
  service: Socket
  /** The framed connection in the middle, its two sockets. */
  link: { near: Socket; far: Socket }
  near: Promise<Traffic>
  far: Promise<Traffic>
}

const MIB = 1024 * 1024

function rawEnd(socket: Socket): RawEnd {
  return new RawEnd(socket, socket, () => resetSocket(socket))
}

async function startFlow(
  connectLink: ConnectPair,
  options: { near?: SpliceOptions; far?: SpliceOptions } = {},
): Promise<Flow> {
  const [person, personEdge] = await connectTcp()
  const [near, far] = await connectLink()
  const [serviceEdge, service] = await connectTcp()
  return {
    person,
    service,
    link: { near, far },
    near: splice(rawEnd(personEdge), new FramedEnd(near), options.near),
    far: splice(new FramedEnd(far), rawEnd(serviceEdge), options.far),
  }
}

/** Everything until the end of file. Rejects when the connection is cut. */
async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** How a connection ended for the one who reads it. */
function ending(socket: Socket): Promise<'end' | 'reset'> {
  socket.resume()
  return new Promise((resolve) => {
    socket.on('end', () => resolve('end'))
    socket.on('error', () => resolve('reset'))
    socket.on('close', () => resolve('reset'))
  })
}

async function closed(...sockets: Socket[]): Promise<void> {
  const closing = sockets.map((socket) => {
    return new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve())))
  })
  await Promise.all(closing)
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Writes until the socket is cut. */
function pump(socket: Socket): void {
  const chunk = Buffer.alloc(64 * 1024, 7)
  const more = () => {
    while (!socket.destroyed && socket.write(chunk));
  }
  socket.on('drain', more)
  more()
}

for (const [transport, connectLink] of [
  ['TCP', connectTcp],
  ['TLS', connectTls],
] as const) {
  describe(`a flow of two hops over ${transport}`, { timeout: 120_000 }, () => {
    test('passes bytes both ways, counts them and closes every connection', async () => {
      const { person, service, link, near, far } = await startFlow(connectLink)
      person.end('question')
      assert.equal((await readAll(service)).toString(), 'question')
      service.end('answer!')
      assert.equal((await readAll(person)).toString(), 'answer!')
      assert.deepEqual(await near, { bytesUp: 8, bytesDown: 7 })
      assert.deepEqual(await far, { bytesUp: 8, bytesDown: 7 })
      await closed(person, service, link.near, link.far)
    })

    test('keeps a reply that starts after the client has ended', async () => {
      const { person, service, near } = await startFlow(connectLink)
      person.end('hello')
      await readAll(service)
      await pause(300) // the late reply itself, longer than any teardown at the first end
      const reply = Buffer.alloc(4 * MIB, 'x')
      service.end(reply)
      assert.equal(sha256(await readAll(person)), sha256(reply))
      assert.equal((await near).cut, undefined)
    })

    test('keeps what the client sends after the service has ended', async () => {
      const { person, service, near, far } = await startFlow(connectLink)
      service.end('bye')
      assert.equal((await readAll(person)).toString(), 'bye')
      person.end('one more thing')
      assert.equal((await readAll(service)).toString(), 'one more thing')
      assert.deepEqual(await near, { bytesUp: 14, bytesDown: 3 })
      assert.deepEqual(await far, { bytesUp: 14, bytesDown: 3 })
    })

    test('passes an end without any byte', async () => {
      const { person, service, near } = await startFlow(connectLink)
      person.end()
      assert.equal((await readAll(service)).length, 0)
      service.end()
      assert.equal((await readAll(person)).length, 0)
      assert.deepEqual(await near, { bytesUp: 0, bytesDown: 0 })
    })

    test('passes 8 MiB in both directions at once, unchanged', async () => {
      const { person, service, near } = await startFlow(connectLink)
      const up = Buffer.from(Array.from({ length: 4096 }, (_, at) => at & 0xff))
        .toString('latin1')
        .repeat(2048)
      const down = Buffer.from(up, 'latin1').reverse()
      person.end(Buffer.from(up, 'latin1'))
      service.end(down)
      const [atService, atPerson] = await Promise.all([readAll(service), readAll(person)])
      assert.equal(sha256(atService), sha256(Buffer.from(up, 'latin1')))
      assert.equal(sha256(atPerson), sha256(down))
      assert.deepEqual(await near, { bytesUp: up.length, bytesDown: down.length })
    })

    test('stops a fast sender when the reader stops, and goes on with it', async () => {
      const { person, service, near } = await startFlow(connectLink)
      const chunk = Buffer.alloc(64 * 1024, 1)
      service.pause()
      let sent = 0
      const stalled = async () => {
        for (;;) {
          if (person.write(chunk)) sent += chunk.length
          else {
            sent += chunk.length
            const drained = once(person, 'drain').then(() => true)
            if (!(await Promise.race([drained, pause(500, false)]))) return
          }
          assert.ok(sent < 64 * MIB, 'nothing held the sender back')
        }
      }
      await stalled()
      person.end()
      const received = readAll(service)
      service.end()
      assert.equal((await received).length, sent)
      assert.equal((await near).bytesUp, sent)
    })

    test('a client that vanishes is a reset for the service, not an end', async () => {
      const { person, service, near, far } = await startFlow(connectLink)
      pump(person)
      await once(service, 'data')
      person.resetAndDestroy()
      assert.equal(await ending(service), 'reset')
      assert.equal((await near).cut?.by, 'left')
      const cut = (await far).cut
      assert.equal(cut?.by, 'left')
      assert.equal(cut.error.code, 'FLOW_CUT')
    })

    test('a service that resets is a reset for the client, with the same code on the way', async () => {
      const { person, service, near, far } = await startFlow(connectLink)
      person.write('x')
      await once(service, 'data')
      service.resetAndDestroy()
      assert.equal(await ending(person), 'reset')
      assert.equal((await far).cut?.by, 'right')
      assert.equal((await near).cut?.error.code, 'FLOW_CUT')
    })

    test('an end of the connection without end frames is a cut on both sides', async () => {
      const { person, service, link, near, far } = await startFlow(connectLink)
      service.write('x')
      await once(person, 'data')
      link.near.end() // what an attacker on the network can do: a clean end of the transport
      assert.deepEqual(await Promise.all([ending(person), ending(service)]), ['reset', 'reset'])
      assert.equal((await far).cut?.error.code, 'FLOW_CUT')
      assert.equal((await near).cut?.error.code, 'FLOW_CUT')
    })

    test('a connection that breaks after the end of one direction is a cut of the other', async () => {
      const { person, service, link, far } = await startFlow(connectLink)
      person.end('all of it')
      assert.equal((await readAll(service)).toString(), 'all of it')
      link.near.destroy()
      assert.equal(await ending(person), 'reset')
      assert.equal((await far).cut?.by, 'left')
      service.write('x') // it had its end of file already, so it notices when it writes
      await closed(service)
    })

    test('a revoked flow is cut on both sides, and the error reaches a client that pumps', async () => {
      const revocation = new AbortController()
      const { person, service, near, far } = await startFlow(connectLink, {
        far: { signal: revocation.signal },
      })
      pump(person)
      await once(service, 'data')
      const error = new PosternError('FLOW_REVOKED', 'not allowed any more', { hint: 'ask' })
      revocation.abort(error)
      assert.deepEqual(await Promise.all([ending(person), ending(service)]), ['reset', 'reset'])
      assert.equal((await far).cut?.by, 'signal')
      const heard = (await near).cut?.error
      assert.deepEqual(
        [heard?.code, heard?.message, heard?.hint],
        ['FLOW_REVOKED', 'not allowed any more', 'ask'],
      )
    })

    test('a signal that was raised before it starts ends it at once', async () => {
      const signal = AbortSignal.abort(new PosternError('EDGE_STOPPING', 'the edge stops'))
      const { person, near, far } = await startFlow(connectLink, { far: { signal } })
      assert.equal((await far).cut?.by, 'signal')
      assert.equal((await near).cut?.error.code, 'EDGE_STOPPING')
      assert.equal(await ending(person), 'reset')
    })

    test('tells ok frames and when everything down has been handed over', async () => {
      const heard: unknown[] = []
      const [person, personEdge] = await connectTcp()
      const [link, far] = await connectLink()
      const traffic = splice(rawEnd(personEdge), new FramedEnd(link), {
        onControl: (type, body) => heard.push([type, body]),
        onDownFlushed: () => heard.push('flushed'),
      })
      const edge = new FramedEnd(far)
      edge.receive(deaf)
      edge.resume()
      edge.send('ok', { flowId: 'f' })
      edge.end(() => {})
      assert.equal(await ending(person), 'end')
      assert.deepEqual(heard, [['ok', { flowId: 'f' }], 'flushed'])
      person.end()
      assert.equal((await traffic).cut, undefined)
    })

    test('bytes after the end frame, a second end and a bad control frame break the protocol', async () => {
      const violations = [
        Buffer.concat([END_FRAME, Buffer.from([1, 0, 0, 1, 65])]),
        Buffer.concat([END_FRAME, END_FRAME]),
        Buffer.from([3, 0, 0, 1, 65]),
        encodeControl('error', { message: 'no code' }),
      ]
      for (const violation of violations) {
        const [person, personEdge] = await connectTcp()
        const [link, far] = await connectLink()
        const traffic = splice(rawEnd(personEdge), new FramedEnd(link))
        const answer = readAll(far)
        far.write(violation)
        assert.equal((await traffic).cut?.error.code, 'PROTOCOL_INVALID')
        assert.match((await answer).toString('latin1'), /"PROTOCOL_INVALID"/)
        far.end()
        person.resume().end()
        await closed(link, person)
      }
    })

    test('an error of a later version is heard by its message, under the code for a cut', async () => {
      const [person, personEdge] = await connectTcp()
      const [link, far] = await connectLink()
      const traffic = splice(rawEnd(personEdge), new FramedEnd(link))
      far.end(encodeControl('error', { code: 'TOO_MODERN', message: 'strange things' }))
      assert.equal(await ending(person), 'reset')
      const error = (await traffic).cut?.error
      assert.deepEqual([error?.code, error?.message], ['FLOW_CUT', 'strange things (TOO_MODERN)'])
    })

    test('an end that broke before it was spliced ends the flow too', async () => {
      const [person, personEdge] = await connectTcp()
      const [link] = await connectLink()
      const right = new FramedEnd(link)
      link.destroy()
      await closed(link)
      assert.ok(right.closed)
      assert.equal((await splice(rawEnd(personEdge), right)).cut?.by, 'right')
      assert.equal(await ending(person), 'reset')
    })

    test('data larger than a frame is sent in several', async () => {
      const [near, far] = await connectLink()
      const sender = new FramedEnd(near)
      const big = Buffer.alloc(17 * MIB, 'y')
      let received = 0
      const count = (bytes: Buffer) => {
        received += bytes.length
      }
      const reader = new FramedEnd(far)
      const { promise, resolve } = Promise.withResolvers<void>()
      reader.receive({ ...deaf, chunk: count, end: resolve })
      reader.resume()
      sender.receive(deaf)
      sender.write(big)
      sender.end(() => {})
      await promise
      assert.equal(received, big.length)
    })
  })
}

test('a raw end that broke before it was spliced ends the flow too', { timeout: 120_000 }, async () => {
  const [person, personEdge] = await connectTcp()
  const [link, far] = await connectTcp()
  const left: FlowEnd = rawEnd(personEdge)
  person.resetAndDestroy()
  await closed(personEdge)
  const peer = readAll(far)
  assert.equal((await splice(left, new FramedEnd(link))).cut?.by, 'left')
  assert.match((await peer).toString('latin1'), /"FLOW_CUT"/)
})

test('an error frame is not lost to a peer that does not read for a while', {
  timeout: 120_000,
}, async () => {
  const [near, far] = await connectTcp()
  const edge = new FramedEnd(near)
  const client = new FramedEnd(far)
  const { promise: cut, resolve } = Promise.withResolvers<PosternError>()
  client.receive({ ...deaf, cut: resolve })
  client.write(Buffer.alloc(MIB)) // lies unread in the edge's receive buffer
  await once(near, 'readable')
  edge.receive(deaf)
  edge.abort(new PosternError('ACCESS_DENIED', 'not available to you'))
  edge.abort(new PosternError('FLOW_CUT', 'a second reason changes nothing'))
  await closed(near)
  client.resume()
  assert.equal((await cut).code, 'ACCESS_DENIED')
})

const deaf = { chunk() {}, end() {}, drain() {}, cut() {} }
