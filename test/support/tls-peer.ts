import { execFileSync } from 'node:child_process'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import tls, { type TLSSocket } from 'node:tls'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import type { EdgeProcess } from './edge-process.ts'
import { makeTempFolder } from './temp-folder.ts'

/** A TLS client that is not ours: shows whatever certificate it is given, and tells what came of it. */

export interface KeyAndCertificate {
  key: string
  /** PEM; may carry more certificates behind the leaf. */
  cert: string
}

/** The certificate that `postern client tls` keeps for a service. */
export function clientCertificateOf(home: string, label: string): KeyAndCertificate {
  const [file] = globSync(path.join(home, 'edges', '*', 'certificates', `${label}.json`))
  const { keyPem, certificatePem } = JSON.parse(readFileSync(file!, 'utf8'))
  return { key: keyPem, cert: certificatePem }
}

export interface TlsAttempt {
  serverName: string
  alpn?: string
  identity?: KeyAndCertificate
  /** A session to resume. */
  session?: Buffer
  /** Any address of 127.0.0.0/8: the edge records it, so a flow can be told from all others by it. */
  localAddress?: string
}

export function dial(edge: EdgeProcess, options: TlsAttempt): TLSSocket {
  const from = options.localAddress === undefined ? {} : { localAddress: options.localAddress }
  const socket = net.connect({ host: '127.0.0.1', port: edge.port, allowHalfOpen: true, ...from })
  return dialOver(edge, socket, options)
}

/** The same over a TCP connection of one's own. */
export function dialOver(
  edge: EdgeProcess,
  socket: net.Socket,
  { serverName, alpn, identity, session }: TlsAttempt,
): TLSSocket {
  return tls.connect({
    socket,
    servername: serverName,
    ca: readFileSync(edge.caFile),
    ...(alpn ? { ALPNProtocols: [alpn] } : {}),
    ...identity,
    ...(session ? { session } : {}),
  })
}

/** Sends `hello` and waits for the end.
 *  @returns what came back, and the code of an error frame or of the socket's error */
export function attempt(
  edge: EdgeProcess,
  options: TlsAttempt,
): Promise<{ bytes: string; code: string | undefined }> {
  return new Promise((resolve) => {
    const socket = dial(edge, options)
    let bytes = ''
    const settle = (code?: string) => {
      resolve({ bytes, code })
      socket.destroy()
    }
    socket.on('error', (error: NodeJS.ErrnoException) => settle(error.code ?? error.message))
    if (options.alpn) {
      const end = new FramedEnd(socket)
      end.receive({
        chunk: (chunk) => (bytes += chunk),
        end: () => settle(),
        drain: () => {},
        cut: ({ code }) => settle(code),
      })
      end.write(Buffer.from('hello'))
      end.end(() => {})
      end.resume()
    } else {
      socket.on('data', (chunk) => (bytes += chunk))
      socket.on('close', () => settle())
      socket.end('hello')
    }
  })
}

/** What a framed attempt ends with that the handshake has refused: whatever is refused behind it says why in an error
 *  frame, and this is none. */
export const CLOSED_WITHOUT_A_WORD = /^(FLOW_CUT|ECONNRESET|EPIPE|ERR_SSL_\w+)$/

/** A leaf made with openssl, signed by any CA whose files one has: also by the edge's own, which nobody else has. */
export function forgeCertificate(options: {
  /** Left out: a CA made up on the spot. */
  ca?: { certificate: string; key: string }
  subjectAltName: string
  /** Of an extended key usage; an empty text leaves the extension out. */
  usage?: string
  /** Days from now; negative is in the past. */
  days?: number
  /** Days from now at which it begins to be valid; a day ago by default, or a day before its end. */
  startsInDays?: number
}): KeyAndCertificate {
  const folder = makeTempFolder('forged')
  const file = (name: string) => path.join(folder, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const ca = options.ca ?? { certificate: file('ca.pem'), key: file('ca.key') }
  if (!options.ca) {
    openssl(
      'req',
      '-x509',
      ...newKey,
      '-keyout',
      ca.key,
      '-out',
      ca.certificate,
      '-days',
      '3',
      '-subj',
      '/CN=Postern client CA',
    )
  }
  openssl(
    'req',
    '-new',
    ...newKey,
    '-keyout',
    file('leaf.key'),
    '-out',
    file('leaf.csr'),
    '-subj',
    '/CN=operator@mycorp.com',
  )
  const usage = options.usage === '' ? '' : `extendedKeyUsage=${options.usage ?? 'clientAuth'}\n`
  writeFileSync(
    file('leaf.ext'),
    `basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n${usage}subjectAltName=${options.subjectAltName}\n`,
  )
  const day = (offset: number) =>
    `${new Date(Date.now() + offset * 86_400_000).toISOString().replace(/[-:T]|\.\d+/g, '')}`
  const { days = 1 } = options
  // `openssl x509 -req` of OpenSSL 3.0 cannot backdate; `ca` can
  writeFileSync(file('index.txt'), '')
  writeFileSync(
    file('ca.cnf'),
    `[ca]\ndefault_ca=x\n[x]\ndatabase=${file('index.txt')}\nnew_certs_dir=${folder}\nrand_serial=yes\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n`,
  )
  const start = options.startsInDays ?? Math.min(days - 1, -1)
  const dates = ['-startdate', day(start), '-enddate', day(days)]
  const files = [
    '-cert',
    ca.certificate,
    '-keyfile',
    ca.key,
    '-in',
    file('leaf.csr'),
    '-out',
    file('leaf.pem'),
  ]
  openssl(
    'ca',
    '-batch',
    '-notext',
    '-config',
    file('ca.cnf'),
    ...files,
    '-extfile',
    file('leaf.ext'),
    ...dates,
  )
  return { key: readFileSync(file('leaf.key'), 'utf8'), cert: readFileSync(file('leaf.pem'), 'utf8') }
}
