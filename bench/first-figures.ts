/** First figures of the whole path, side by side with a stunnel chain in one run:
 *
 *      npm run build && node --conditions=postern-source bench/first-figures.ts
 *
 *  Prints throughput up and down (median of interleaved rounds), time from spawn to first byte of a warm
 *  `postern client tls`, and the edge's memory per idle flow. Needs stunnel4. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import type { Readable, Writable } from 'node:stream'
import tls from 'node:tls'
import { ALPN_FLOW } from '@postern/shared/protocol/frames'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { findFreePort } from '../demo/free-port.ts'
import { Program } from '../demo/program.ts'
import { connectService } from '../test/support/connect-service.ts'
import { makePerson } from '../test/support/dev-browser.ts'
import { type EdgeProcess, startEdge } from '../test/support/edge-process.ts'
import { POSTERN, posternEnv, runPostern } from '../test/support/postern.ts'
import { makeTempFolder } from '../test/support/temp-folder.ts'
import { clientCertificateOf, type KeyAndCertificate } from '../test/support/tls-peer.ts'
import { until } from '../test/support/until.ts'

const BYTES = 1024 * 1024 * 1024
const ROUNDS = 5
const IDLE_FLOWS = 1_000

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!

/** The private service: the first byte says what it does. `u` counts until the end, `d` sends BYTES, `i` idles. */
function startPeer(): Promise<net.Server> {
  const chunk = Buffer.alloc(256 * 1024, 7)
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => {})
    socket.once('data', (first: Buffer) => {
      if (first[0] === 0x75) socket.on('end', () => socket.end('done')).resume()
      if (first[0] === 0x69) socket.write('i')
      if (first[0] === 0x64) {
        let left = BYTES
        const pump = () => {
          while (left > 0) {
            left -= chunk.length
            if (!socket.write(chunk)) return
          }
          socket.end()
        }
        socket.on('drain', pump)
        pump()
      }
    })
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

/** Mbit/s of one flow through a pair of streams. */
async function measure(direction: 'u' | 'd', input: Writable, output: Readable): Promise<number> {
  const chunk = Buffer.alloc(256 * 1024, 7)
  const started = performance.now()
  input.on('error', () => {})
  input.write(direction)
  if (direction === 'u') {
    for (let left = BYTES; left > 0; left -= chunk.length) {
      if (!input.write(chunk)) await once(input, 'drain')
    }
    input.end() // not when it goes down: stunnel loses bytes of an answer that follows a half-close
  }
  let received = 0
  output.on('data', (bytes: Buffer) => (received += bytes.length))
  await once(output, 'end')
  input.end()
  if (direction === 'd' && received !== BYTES) throw new Error(`${received} bytes instead of ${BYTES}`)
  if (direction === 'u' && received !== 4) throw new Error('the peer did not say done')
  return (BYTES * 8) / (performance.now() - started) / 1_000
}

/** TCP → TLS → TLS → TCP with stunnel: client, edge (two services of one process) and connector. */
async function startStunnelChain(target: number): Promise<{ port: number; stop: () => void }> {
  const folder = makeTempFolder('stunnel')
  const file = (name: string) => path.join(folder, name)
  const request = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '3',
  ]
  execFileSync(
    'openssl',
    [...request, '-subj', '/CN=localhost', '-keyout', file('key'), '-out', file('cert')],
    { stdio: 'ignore' },
  )
  const [a, b, c, d] = [
    await findFreePort(),
    await findFreePort(),
    await findFreePort(),
    await findFreePort(),
  ]
  const tlsFiles = `cert=${file('cert')}\nkey=${file('key')}\nCAfile=${file('cert')}\nverifyChain=yes\n`
  const service = (name: string, accept: number, connect: number, client: boolean) =>
    `[${name}]\nclient=${client ? 'yes' : 'no'}\naccept=127.0.0.1:${accept}\nconnect=127.0.0.1:${connect}\n${tlsFiles}`
  const programs = Object.entries({
    client: service('client', a, b, true),
    edge: service('in', b, c, false) + service('out', c, d, true),
    connector: service('connector', d, target, false),
  }).map(([name, text]) => {
    writeFileSync(
      file(name),
      `foreground=yes\npid=\nsyslog=no\nsocket=l:TCP_NODELAY=1\nsocket=r:TCP_NODELAY=1\n${text}`,
    )
    return new Program('stunnel4', [file(name)])
  })
  const isListening = (port: number) =>
    new Promise<boolean>((resolve) => {
      const probe = net.connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false))
      probe.on('connect', () => probe.destroy())
    })
  const stop = () => {
    for (const program of programs) program.signal('SIGKILL')
  }
  for (const port of [a, b, c, d]) await until(`stunnel listens on ${port}`, () => isListening(port))
  return { port: a, stop }
}

/** Milliseconds from spawn to the first byte from the service. */
async function timeToFirstByte(args: readonly string[], home: string): Promise<number> {
  const started = performance.now()
  const child = spawn(process.execPath, [POSTERN, ...args], {
    env: posternEnv({ home }),
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  child.stdin.write('i')
  await once(child.stdout, 'data')
  const took = performance.now() - started
  child.kill('SIGKILL')
  return took
}

/** The same with nothing but Node: one mTLS connect. */
async function timeOfMinimalScript(script: string): Promise<number> {
  const started = performance.now()
  const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  const took = performance.now() - started
  child.kill('SIGKILL')
  return took
}

function writeMinimalScript(edge: EdgeProcess, host: string, { key, cert }: KeyAndCertificate): string {
  const file = path.join(makeTempFolder('minimal'), 'minimal.mjs')
  const options = {
    host: '127.0.0.1',
    port: edge.port,
    servername: host,
    key,
    cert,
    ca: readFileSync(edge.caFile, 'utf8'),
  }
  writeFileSync(
    file,
    `import tls from 'node:tls'\nconst s = tls.connect(${JSON.stringify(options)}, () => s.write('i'))\ns.pipe(process.stdout)\n`,
  )
  return file
}

const residentKib = (pid: number) =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1])

/** KiB of resident memory that each idle flow adds to the edge. */
async function memoryPerIdleFlow(
  edge: EdgeProcess,
  host: string,
  identity: KeyAndCertificate,
): Promise<number> {
  const ca = readFileSync(edge.caFile)
  const openFlow = () =>
    new Promise<FramedEnd>((resolve, reject) => {
      const options = {
        host: '127.0.0.1',
        port: edge.port,
        servername: host,
        ALPNProtocols: [ALPN_FLOW],
        ca,
        ...identity,
      }
      const end = new FramedEnd(tls.connect({ ...options, allowHalfOpen: true } as tls.ConnectionOptions))
      end.receive({ chunk: () => resolve(end), end() {}, drain() {}, cut: reject })
      end.write(Buffer.from('i'))
      end.resume()
    })
  const open = async (count: number) => {
    for (let opened = 0; opened < count; opened += 20) await Promise.all(Array.from({ length: 20 }, openFlow))
  }
  await open(200) // what the first flows load and warm up is not theirs
  const before = residentKib(edge.pid)
  await open(IDLE_FLOWS)
  return (residentKib(edge.pid) - before) / IDLE_FLOWS
}

const server = await startPeer()
const target = (server.address() as AddressInfo).port
await using edge = await startEdge()
const home = await makePerson(edge, 'operator@mycorp.com')
await using connected = await connectService({ home, port: target })
const args = ['client', 'tls', '--host', connected.host]
await runPostern(args, { home, stdin: 'u' })
const stunnel = await startStunnelChain(target)

if (process.argv.includes('--memory')) {
  console.log(
    (await memoryPerIdleFlow(edge, connected.host, clientCertificateOf(home, connected.label))).toFixed(0),
  )
  process.exit(0)
}
const rows: Record<string, number[]> = {
  'postern up': [],
  'stunnel up': [],
  'postern down': [],
  'stunnel down': [],
}
for (let round = 0; round < ROUNDS; round++) {
  for (const direction of ['u', 'd'] as const) {
    const name = direction === 'u' ? 'up' : 'down'
    const client = spawn(process.execPath, [POSTERN, ...args], {
      env: posternEnv({ home }),
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    rows[`postern ${name}`]!.push(await measure(direction, client.stdin, client.stdout))
    const socket = net.connect({ port: stunnel.port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    rows[`stunnel ${name}`]!.push(await measure(direction, socket, socket))
  }
}
stunnel.stop()
console.log(`${os.cpus().length} × ${os.cpus()[0]!.model}, Node ${process.version}`)
for (const [name, values] of Object.entries(rows)) {
  console.log(
    `${name.padEnd(14)} ${median(values).toFixed(0).padStart(6)} Mbit/s   (${values.map((v) => v.toFixed(0)).join(' ')})`,
  )
}

const identity = clientCertificateOf(home, connected.label)
const minimal = writeMinimalScript(edge, connected.host, identity)
const first: number[] = []
const least: number[] = []
for (let round = 0; round < 21; round++) {
  first.push(await timeToFirstByte(args, home))
  least.push(await timeOfMinimalScript(minimal))
}
console.log(
  `first byte, warm: postern ${median(first).toFixed(0)} ms, minimal script ${median(least).toFixed(0)} ms`,
)
console.log(
  `edge memory per idle flow: ${(await memoryPerIdleFlow(edge, connected.host, identity)).toFixed(0)} KiB`,
)
server.close()
process.exit(0)
