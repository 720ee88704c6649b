import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'
import { fileURLToPath } from 'node:url'
import { findFreePort } from '../../demo/free-port.ts'
import { Program } from '../../demo/program.ts'
import { type Chain, makePeerCertificate, startChain } from './chain.ts'

/** The thinnest relay that Node can be: the same hops as the product (client, edge, connector, one TLS connection per
 *  flow on each side, warm ones waiting), joined by `pipe`. No identity, no policy, no record, no frames: a cut looks
 *  like an end. What the product adds is the difference. */

const BUFFER_BYTES = 512 * 1024
const WARM = 16
const SOCKET = { allowHalfOpen: true, noDelay: true, highWaterMark: BUFFER_BYTES }

export interface BareChain extends Chain {
  /** Of the process in the place of the edge. */
  relayPid: number
  relayPort: number
  /** What a client shows and trusts there. */
  context: tls.SecureContext
}

export async function startBareChain(target: number): Promise<BareChain> {
  const { keyFile, certificateFile } = makePeerCertificate()
  const [port, relay, data] = [await findFreePort(), await findFreePort(), await findFreePort()]
  const run = (part: keyof typeof PARTS, from: number, to: number) =>
    new Program(process.execPath, [
      fileURLToPath(import.meta.url),
      ...[part, String(from), String(to), keyFile, certificateFile],
    ])
  const relayProgram = run('relay', relay, data)
  const chain = await startChain(relay, [relayProgram], [data])
  const connector = run('connector', data, target)
  const client = await startChain(port, [run('client', port, relay), connector], [port])
  const [key, cert] = [readFileSync(keyFile), readFileSync(certificateFile)]
  return {
    port,
    relayPid: relayProgram.pid,
    relayPort: relay,
    context: tls.createSecureContext({ key, cert, ca: cert, minVersion: 'TLSv1.3' }),
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]()
      await chain[Symbol.asyncDispose]()
    },
  }
}

interface Hop {
  from: number
  to: number
  trust: tls.SecureContextOptions
}

const PARTS = { client: serveClient, relay: serveRelay, connector: serveConnector }

function serveClient({ from, to, trust }: Hop): void {
  const server = net.createServer(SOCKET, (local) => join(local, dialTls(to, trust)))
  server.listen(from, '127.0.0.1')
}

function serveRelay({ from, to, trust }: Hop): void {
  const warm: tls.TLSSocket[] = []
  const waiting: tls.TLSSocket[] = []
  const match = () => {
    while (warm.length > 0 && waiting.length > 0) join(waiting.shift()!, warm.shift()!)
  }
  const options = { ...SOCKET, ...trust, requestCert: true, minVersion: 'TLSv1.3' } as const
  const take = (queue: tls.TLSSocket[]) =>
    tls.createServer(options, (socket) => {
      queue.push(socket)
      match()
    })
  take(waiting).listen(from, '127.0.0.1')
  take(warm).listen(to, '127.0.0.1')
}

function serveConnector({ from, to, trust }: Hop): void {
  const open = () => {
    const socket = dialTls(from, trust)
    socket.once('readable', () => {
      open()
      join(socket, net.connect({ ...SOCKET, port: to, host: '127.0.0.1' }))
    })
  }
  for (let count = 0; count < WARM; count++) open()
}

function dialTls(port: number, trust: tls.SecureContextOptions): tls.TLSSocket {
  const socket = net.connect({ ...SOCKET, port, host: '127.0.0.1' })
  const options = { ...trust, socket, servername: 'localhost', highWaterMark: BUFFER_BYTES }
  return tls.connect(options as tls.ConnectionOptions)
}

function join(left: net.Socket, right: net.Socket): void {
  left.pipe(right)
  right.pipe(left)
  for (const [one, other] of [
    [left, right],
    [right, left],
  ] as const) {
    one.on('error', () => other.destroy())
    one.on('close', () => other.destroySoon())
  }
}

if (import.meta.main) {
  const [part = '', from, to, keyFile = '', certificateFile = ''] = process.argv.slice(2)
  const [key, cert] = [readFileSync(keyFile), readFileSync(certificateFile)]
  const hop = { from: Number(from), to: Number(to), trust: { key, cert, ca: cert } }
  PARTS[part as keyof typeof PARTS](hop)
}
