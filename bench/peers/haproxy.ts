import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import tls from 'node:tls'
import { findFreePort } from '../../demo/free-port.ts'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { type Chain, makePeerCertificate, startChain } from './chain.ts'

/** haproxy as a TLS proxy in front of the service: asks for a client certificate, TLS 1.3, no tickets, one thread. */
export interface Haproxy extends Chain {
  pid: number
  /** What a client shows and trusts there. */
  context: tls.SecureContext
}

export async function startHaproxy(target: number): Promise<Haproxy> {
  const folder = makeTempFolder('haproxy')
  const { keyFile, certificateFile } = makePeerCertificate()
  const [key, cert] = [readFileSync(keyFile, 'utf8'), readFileSync(certificateFile, 'utf8')]
  writeFileSync(path.join(folder, 'both.pem'), cert + key, { mode: 0o600 })
  const port = await findFreePort()
  const file = path.join(folder, 'haproxy.cfg')
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 8000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:${port} ssl crt ${path.join(folder, 'both.pem')} ca-file ${certificateFile} verify required ssl-min-ver TLSv1.3 no-tls-tickets
  default_backend service
backend service
  server service 127.0.0.1:${target}
`,
  )
  const program = new Program('haproxy', ['-db', '-f', file])
  const chain = await startChain(port, [program])
  const context = tls.createSecureContext({ key, cert, ca: cert, minVersion: 'TLSv1.3' })
  return { ...chain, pid: program.pid, context }
}
