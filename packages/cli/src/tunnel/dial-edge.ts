import type { Duplex } from 'node:stream'
import tls, { type SecureContext, type TLSSocket } from 'node:tls'
import { PosternError } from '@postern/shared/errors'
import { explainNetworkError, readShownCertificate, type ShownCertificate } from '../api/network-error.ts'
import { shakeHands } from '../network/shake-hands.ts'
import { openToRooms } from '../network/transport.ts'

/** A TLS 1.3 connection to one of the edge's rooms, with half-close. */

export interface Dial {
  /** Host name that is looked up: the edge's own. */
  host: string
  port: number
  /** SNI. The edge's certificate must be good for this name, or for the edge's own: a public one without a wildcard is
   *  not good for every service, and whoever is the edge is it for all of them. */
  serverName: string
  alpn: string
  trust: Trust
  signal?: AbortSignal | undefined
}

/** Whom to trust and what to show. */
export interface Trust {
  /** The edge's CA; left out: the system's. */
  caPem?: string | undefined
  keyPem: string
  certificatePem: string
}

export const DIAL_TIMEOUT_MS = 10_000
/** Larger reads and writes than Node's 16 and 64 KiB: fewer turns per byte on a fast path. */
export const SOCKET_BUFFER_BYTES = 512 * 1024

/** @throws EDGE_UNREACHABLE · EDGE_UNTRUSTED · CLOCK_OFF · CERTIFICATE_REFUSED. In TLS 1.3 most refusals of the
 *  client certificate come later, as an alert or an early close of the returned connection. What stands in the way tells
 *  its own: PROXY_*. */
export async function dialEdge(dial: Dial): Promise<TLSSocket> {
  const where = `${dial.serverName}:${dial.port}`
  const timeout = AbortSignal.timeout(DIAL_TIMEOUT_MS)
  const signal = dial.signal ? AbortSignal.any([dial.signal, timeout]) : timeout
  const opening = openToRooms(dial, { signal, allowHalfOpen: true })
  let shown: ShownCertificate | undefined
  try {
    // takes some milliseconds, while the network is busy with the connection
    const context = createContext(dial.trust)
    const socket = startTls(await opening, context, dial)
    // runs before Node verifies; a socket that failed to verify no longer has its certificate
    socket.prependListener('secure', () => {
      shown = readShownCertificate(socket)
    })
    await shakeHands(socket, signal)
    return socket
  } catch (cause) {
    opening.then(
      (tcp) => tcp.destroy(),
      () => undefined,
    )
    dial.signal?.throwIfAborted()
    if (!timeout.aborted)
      throw explainNetworkError(cause, where, { shown, isPinned: dial.trust.caPem !== undefined })
    throw new PosternError('EDGE_UNREACHABLE', `cannot reach ${where}: it does not answer`)
  }
}

/** One context serves any number of connections with the same certificate. */
const contexts = new WeakMap<Trust, SecureContext>()

/** @throws STATE_INVALID when key or certificate cannot be read */
function createContext(trust: Trust): SecureContext {
  const known = contexts.get(trust)
  if (known) return known
  const { caPem, keyPem, certificatePem } = trust
  try {
    const context = tls.createSecureContext({
      key: keyPem,
      cert: certificatePem,
      minVersion: 'TLSv1.3',
      ...(caPem === undefined ? {} : { ca: caPem }),
    })
    contexts.set(trust, context)
    return context
  } catch (cause) {
    throw new PosternError('STATE_INVALID', 'the stored certificate or the CA of the edge cannot be read', {
      cause,
      hint: 'sign out and in again: postern logout, postern login --edge https://HOST --ca-file FILE',
    })
  }
}

function startTls(tcp: Duplex, secureContext: SecureContext, dial: Dial): TLSSocket {
  return tls.connect({
    socket: tcp,
    secureContext,
    servername: dial.serverName,
    ALPNProtocols: [dial.alpn],
    checkServerIdentity: (serverName: string, certificate: tls.PeerCertificate) =>
      tls.checkServerIdentity(serverName, certificate) && tls.checkServerIdentity(dial.host, certificate),
    // said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would otherwise switch it off
    rejectUnauthorized: true,
    highWaterMark: SOCKET_BUFFER_BYTES,
  } as tls.ConnectionOptions)
}
