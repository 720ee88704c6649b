import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { findFreePort } from '../../demo/free-port.ts'
import { type EdgeProcess, startEdge } from './edge-process.ts'

/** A wire between everybody and their edge that counts connections, and can keep answers back until a question has
 *  come whole: who waits for an answer in the middle of it waits for ever. */

/** `client` and `data` of a connector name their protocol in the ClientHello, in the clear; the rest is HTTPS. */
export type Room = 'client' | 'data' | 'https'

export interface AnswerWire extends AsyncDisposable {
  edge: EdgeProcess
  /** Connections made so far. */
  readonly made: Readonly<Record<Room, number>>
  /** From now on the edge's bytes reach a client after the handshake, and a connector's the edge, only when so many bytes
   *  have gone the other way on the same connection. */
  keepAnswersBack(untilBytes: number): void
}

export async function startEdgeOnAnswerWire(): Promise<AnswerWire> {
  const inner = await findFreePort()
  const made: Record<Room, number> = { client: 0, data: 0, https: 0 }
  const sockets = new Set<Socket>()
  let questionBytes = 0
  /** Bytes of questions so far, by connection. */
  const asked = new Map<Socket, number>()

  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host: '127.0.0.1', port: inner, allowHalfOpen: true })
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => other.destroy())
    }
    near.once('data', (hello) => {
      const room = readRoom(hello)
      made[room]++
      const [asker, answerer] = room === 'data' ? [far, near] : [near, far]
      let hasAnswered = room === 'data'
      let kept: (() => void)[] = []
      const isAsked = () => (asked.get(asker) ?? 0) >= questionBytes
      const ask = (chunk: Buffer) => {
        if (questionBytes > 0 && hasAnswered) asked.set(asker, (asked.get(asker) ?? 0) + chunk.length)
        answerer.write(chunk)
        if (!isAsked()) return
        for (const deliver of kept) deliver()
        kept = []
      }
      const answer = (deliver: () => void) => {
        // the first answer to a client is the handshake's
        const mayPass = room === 'https' || (room === 'client' && !asked.has(asker)) || isAsked()
        hasAnswered = true
        if (mayPass && kept.length === 0) deliver()
        else kept.push(deliver)
      }
      answerer.on('data', (chunk) => answer(() => asker.write(chunk)))
      answerer.on('end', () => answer(() => asker.end()))
      asker.on('data', ask)
      asker.on('end', () => answerer.end())
      if (asker === near) ask(hello)
      else answer(() => asker.write(hello))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const edge = await startEdge({ port: inner, config: { public_port: port } })
  return {
    edge,
    made,
    keepAnswersBack(untilBytes) {
      questionBytes = untilBytes
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]()
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

function readRoom(hello: Buffer): Room {
  if (hello.includes('postern-data/1')) return 'data'
  return hello.includes('postern/1') ? 'client' : 'https'
}
