import { createHash, timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import tls, { type DetailedPeerCertificate, type TLSSocket } from 'node:tls'
import { PosternError } from '@postern/shared/errors'
import { CONNECT_TIMEOUT_MS } from '../api/https-request.ts'
import { explainNetworkError } from '../api/network-error.ts'
import { openTcp } from '../network/open-tcp.ts'

/** Trust on first contact by fingerprint: finds the root that a person names by its SHA-256 among the certificates
 *  an edge shows. Verification stays on: the handshake with an unknown CA fails, nothing is sent on it, and the
 *  caller connects anew, trusting that root only. */

/** `sha256:HEX`, 64 digits, colons between them or not.
 *  @throws USAGE_INVALID */
export function parseFingerprint(text: string): Buffer {
  const hex = /^sha-?256:((?:[0-9a-f]{2}:?){32})$/i.exec(text.trim())?.[1]?.replaceAll(':', '')
  if (hex?.length === 64) return Buffer.from(hex, 'hex')
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a fingerprint`, {
    hint: 'write it as postern-edge prints it: sha256: and 64 hexadecimal digits',
  })
}

/** @returns the root, PEM
 *  @throws EDGE_UNTRUSTED the edge shows no such certificate · EDGE_UNREACHABLE */
export async function fetchPinnedCa(origin: string, fingerprint: Buffer): Promise<string> {
  const { hostname, port, host } = new URL(origin)
  const place = { host: hostname, port: Number(port || 443) }
  const tcp = await openTcp(place, { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) }).catch(
    (error: unknown) => {
      throw explainNetworkError(error, host)
    },
  )
  const shown = await readShownChain(tcp, { hostname, host })
  const root = shown.find((der) => timingSafeEqual(sha256(der), fingerprint))
  if (root) return toPem(root)
  throw new PosternError('EDGE_UNTRUSTED', `${host} does not show a certificate with this fingerprint`, {
    hint: 'compare it with the line that postern-edge prints at its start; if it is the same, somebody is between you and the edge',
  })
}

/** DER, leaf first. */
function readShownChain(tcp: Socket, edge: { hostname: string; host: string }): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    let shown: Buffer[] = []
    const socket = tls.connect({
      socket: tcp,
      servername: edge.hostname,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['http/1.1'],
      rejectUnauthorized: true,
    })
    const settle = (error?: unknown) => {
      clearTimeout(timer)
      socket.destroy()
      if (shown.length > 0) resolve(shown)
      else reject(explainNetworkError(error, edge.host))
    }
    const timer = setTimeout(
      () => settle(Object.assign(new Error('no connection in time'), { code: 'ETIMEDOUT' })),
      CONNECT_TIMEOUT_MS,
    )
    // before Node verifies: a socket that failed to verify no longer has its certificates
    socket.prependListener('secure', () => {
      shown = readChain(socket)
    })
    socket.once('secureConnect', () => settle())
    socket.once('error', settle)
    socket.once('close', () => settle(Object.assign(new Error('closed'), { code: 'ECONNRESET' })))
  })
}

function readChain(socket: TLSSocket): Buffer[] {
  const chain: Buffer[] = []
  let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (certificate?.raw && !chain.some((der) => der.equals(certificate!.raw))) {
    chain.push(certificate.raw)
    certificate = certificate.issuerCertificate
  }
  return chain
}

function sha256(der: Buffer): Buffer {
  return createHash('sha256').update(der).digest()
}

function toPem(der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g)!
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}
