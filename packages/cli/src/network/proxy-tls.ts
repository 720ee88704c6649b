import { isIP, type Socket } from 'node:net'
import tls, { type SecureContext, type TLSSocket } from 'node:tls'
import { PosternError } from '@postern/shared/errors'
import { isUntrustedCertificate } from '../api/network-error.ts'
import { readCaFile } from '../ca-file.ts'
import type { ProxyServer } from './choose-proxy.ts'
import { describeProxy } from './proxy-talk.ts'
import { shakeHands } from './shake-hands.ts'

/** TLS with the proxy itself, around everything that is said to it and carried through it. Loaded only where a proxy
 *  of this kind is named. */

/** @throws PROXY_UNTRUSTED · PROXY_INVALID it speaks no TLS · USAGE_INVALID · Node's own errors · the reason of the signal */
export async function startProxyTls(
  tcp: Socket,
  proxy: ProxyServer,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const socket = tls.connect({
    socket: tcp,
    host: proxy.host,
    servername: isIP(proxy.host) ? '' : proxy.host,
    secureContext: chooseContext(),
    ALPNProtocols: ['http/1.1'],
    // said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would otherwise switch it off
    rejectUnauthorized: true,
  })
  socket.on('error', () => undefined) // as for TCP: whoever waits for it hears of it
  try {
    await shakeHands(socket, signal)
    return socket
  } catch (cause) {
    socket.destroy()
    signal.throwIfAborted()
    throw explain(cause as NodeJS.ErrnoException, proxy)
  }
}

function explain(cause: NodeJS.ErrnoException, proxy: ProxyServer): unknown {
  if (isUntrustedCertificate(cause)) {
    const what = `the certificate of ${describeProxy(proxy)} is not trusted: ${cause.message}`
    return new PosternError('PROXY_UNTRUSTED', what, { cause })
  }
  if (!cause.code?.startsWith('ERR_SSL_')) return cause
  return new PosternError(
    'PROXY_INVALID',
    `${describeProxy(proxy)} speaks no TLS that goes together with ours`,
    {
      cause,
      hint: 'if it is spoken to without TLS, write http://HOST:PORT',
    },
  )
}

/** @throws USAGE_INVALID about the file that names the CA */
function chooseContext(): SecureContext {
  const file = process.env.POSTERN_PROXY_CA_FILE
  if (file) return trusting(readCaFile(file, 'ask whoever runs the proxy for its CA, in PEM'))
  systemContext ??= trusting([...tls.getCACertificates('default'), ...tls.getCACertificates('system')])
  return systemContext
}

/** What Node trusts, NODE_EXTRA_CA_CERTS with it, and what the system does. Reading hundreds of them takes a moment: once for
 *  all connections. */
let systemContext: SecureContext | undefined

function trusting(ca: string | string[]): SecureContext {
  return tls.createSecureContext({ ca, minVersion: 'TLSv1.2' })
}
