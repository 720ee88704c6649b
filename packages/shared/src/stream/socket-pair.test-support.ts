import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { after } from 'node:test'
import tls from 'node:tls'

/** Two ends of one real connection, for tests of streams. What a test leaves open is destroyed when all have run. */

export type ConnectPair = () => Promise<[Socket, Socket]>

const open = new Set<Socket>()
after(() => {
  for (const socket of open) socket.destroy()
})

function remember(pair: [Socket, Socket]): [Socket, Socket] {
  for (const socket of pair) {
    open.add(socket)
    socket.on('error', () => {}) // a test that means it listens by itself
    socket.on('close', () => open.delete(socket))
  }
  return pair
}

/** @returns who opened it, who accepted it */
export async function connectTcp(): Promise<[Socket, Socket]> {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = net.connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    allowHalfOpen: true,
  })
  const [[accepted]] = await Promise.all([once(server, 'connection'), once(client, 'connect')])
  server.close()
  return remember([client, accepted as Socket])
}

export async function connectTls(): Promise<[Socket, Socket]> {
  const [near, far] = await connectTcp()
  const server = tls.createServer({ ...certificate(), allowHalfOpen: true, minVersion: 'TLSv1.3' })
  server.emit('connection', far)
  const client = tls.connect({ socket: near, ca: certificate().cert, servername: 'edge.localhost' })
  const [[accepted]] = await Promise.all([once(server, 'secureConnection'), once(client, 'secureConnect')])
  return remember([client, accepted as Socket])
}

let made: { key: string; cert: string } | undefined
function certificate(): { key: string; cert: string } {
  if (made) return made
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '-']
  const names = ['-subj', '/CN=edge', '-addext', 'subjectAltName=DNS:edge.localhost']
  const { stdout, stderr, status } = spawnSync('openssl', ['req', '-x509', ...curve, ...names], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
  const at = stdout.indexOf('-----BEGIN CERTIFICATE')
  made = { key: stdout.slice(0, at), cert: stdout.slice(at) }
  return made
}
