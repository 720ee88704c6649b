import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import tls, { type PeerCertificate } from 'node:tls'
import type { EdgeProcess } from './edge-process.ts'

/** The certificate that the edge shows to whoever asks for this name, after it was verified.
 *  @throws when it is not good for that name under this CA */
export async function shownCertificate(
  edge: Pick<EdgeProcess, 'port'>,
  serverName: string,
  caFile: string,
): Promise<PeerCertificate> {
  const socket = tls.connect({
    host: '127.0.0.1',
    port: edge.port,
    servername: serverName,
    ca: readFileSync(caFile),
    ALPNProtocols: ['http/1.1'],
  })
  try {
    await once(socket, 'secureConnect')
    return socket.getPeerCertificate()
  } finally {
    socket.destroy()
  }
}
