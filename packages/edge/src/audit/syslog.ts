import net from 'node:net'
import { hostname } from 'node:os'
import tls from 'node:tls'
import type { SyslogAddress } from '../config/config.ts'
import type { Batch } from './sinks.ts'

/** Facility 13 (log audit), severity 6 (informational): RFC 5424 §6.2.1. */
const PRIORITY = 13 * 8 + 6

/** Sends a batch over a connection of its own. Syslog acknowledges nothing, but a receiver that has read to our end
 *  closes its side: that is waited for. @throws whatever went wrong: the batch is then sent again */
export function sendBatch(address: SyslogAddress, { lines }: Batch, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(address)
    let hasEnded = false
    const abort = () => socket.destroy(new Error('it did not answer in time'))
    signal.addEventListener('abort', abort, { once: true })
    socket.on('error', reject)
    socket.on('end', () => {
      hasEnded = true
    })
    socket.on('close', () => {
      signal.removeEventListener('abort', abort)
      if (hasEnded && socket.writableFinished) resolve()
      else reject(new Error('the connection was cut'))
    })
    socket.resume()
    socket.end(lines.map(formatMessage).join(''))
  })
}

function connect(address: SyslogAddress): net.Socket {
  if ('path' in address) return net.connect({ path: address.path, allowHalfOpen: true })
  const { host, port } = address
  return tls.connect({ host, port, ...(net.isIP(host) ? {} : { servername: host }), minVersion: 'TLSv1.2' })
}

/** RFC 5424, with the length in front (RFC 6587 §3.4.1). */
function formatMessage({ at, type, line }: Batch['lines'][number]): string {
  const host =
    hostname()
      .replace(/[^\x21-\x7e]/g, '')
      .slice(0, 255) || '-'
  const header = `<${PRIORITY}>1 ${new Date(at).toISOString()} ${host} postern-edge ${process.pid} ${type.slice(0, 32)} -`
  const message = `${header} ${line}`
  return `${Buffer.byteLength(message)} ${message}`
}
