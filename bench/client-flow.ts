import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls, { type SecureContext } from 'node:tls'
import type { PosternError } from '@postern/shared/errors'
import { ALPN_FLOW } from '@postern/shared/protocol/frames'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import type { EdgeProcess } from '../test/support/edge-process.ts'
import type { KeyAndCertificate } from '../test/support/tls-peer.ts'
import { ECHO_ONE } from './service.ts'

/** Clients by the thousand in this process, which speak the real protocol: a flow to the echo of the bench's service. */

export interface ClientFlow {
  /** Settles with the reason when it is cut, and with undefined after a clean end. */
  over: Promise<PosternError | undefined>
  /** Sends one byte and waits until it is back. */
  ping(): Promise<void>
  /** Ends it well. */
  end(): Promise<void>
  destroy(): void
}

export interface Entrance {
  port: number
  serverName: string
  context: SecureContext
}

export function entranceOf(edge: EdgeProcess, host: string, identity: KeyAndCertificate): Entrance {
  const context = tls.createSecureContext({
    ca: readFileSync(edge.caFile),
    ...identity,
    minVersion: 'TLSv1.3',
  })
  return { port: edge.port, serverName: host, context }
}

/** Opens a flow. @returns it once the service has sent its first byte back */
export async function openFlow({ port, serverName, context }: Entrance): Promise<ClientFlow> {
  const tcp = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
  const socket = tls.connect({
    socket: tcp,
    servername: serverName,
    secureContext: context,
    ALPNProtocols: [ALPN_FLOW],
  })
  const end = new FramedEnd(socket)
  const over = Promise.withResolvers<PosternError | undefined>()
  let answer = Promise.withResolvers<void>()
  end.receive({
    chunk: () => answer.resolve(),
    end: () => over.resolve(undefined),
    drain: () => {},
    cut: (error) => {
      answer.reject(error)
      over.resolve(error)
    },
  })
  end.resume()
  const send = (bytes: Buffer) => {
    answer = Promise.withResolvers()
    answer.promise.catch(() => {}) // a flow that is cut while nobody waits
    end.write(bytes)
    return answer.promise
  }
  await send(ECHO_ONE)
  return {
    over: over.promise,
    ping: () => send(ECHO_ONE.subarray(0, 1)),
    async end() {
      end.end(() => {})
      const error = await over.promise
      if (error) throw error
    },
    destroy: () => void socket.destroy(),
  }
}

/** Opens that many, so many at a time. */
export async function openFlows(entrance: Entrance, count: number, atOnce = 16): Promise<ClientFlow[]> {
  const flows: ClientFlow[] = []
  await inTurns(count, atOnce, async () => {
    flows.push(await openFlow(entrance))
  })
  return flows
}

/** Runs `work` that often, at most `atOnce` at the same time. */
export async function inTurns(
  count: number,
  atOnce: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(count, atOnce) }, worker))
}
