import { execFileSync } from 'node:child_process'
import { connect } from 'node:net'
import path from 'node:path'
import type { Program } from '../../demo/program.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { until } from '../../test/support/until.ts'

/** What other tunnels have in common: a local port in front, the bench's service at the end, and a certificate. */
export interface Chain extends AsyncDisposable {
  port: number
}

/** Programs of a chain, and how they end together. */
export async function startChain(
  port: number,
  programs: readonly Program[],
  ports: readonly number[] = [port],
): Promise<Chain> {
  const stop = async () => {
    for (const program of programs) await program.stop('SIGKILL')
  }
  try {
    for (const each of ports) await until(`somebody listens on ${each}`, () => isListening(each, programs))
  } catch (error) {
    await stop()
    throw error
  }
  return { port, [Symbol.asyncDispose]: stop }
}

function isListening(port: number, programs: readonly Program[]): Promise<boolean> {
  const ended = programs.find((program) => !program.isRunning)
  if (ended) throw new Error(`${ended.name} has ended\n${ended.logs()}`)
  return new Promise((resolve) => {
    const probe = connect(port, '127.0.0.1')
    probe.on('error', () => resolve(false))
    probe.on('connect', () => {
      probe.destroy()
      resolve(true)
    })
  })
}

export interface PeerCertificate {
  keyFile: string
  certificateFile: string
}

/** One certificate for both ends of every hop, its own CA: of the same kind as the product's. */
export function makePeerCertificate(): PeerCertificate {
  const folder = makeTempFolder('peer')
  const [keyFile, certificateFile] = [path.join(folder, 'key.pem'), path.join(folder, 'certificate.pem')]
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3'],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
      ...['-keyout', keyFile, '-out', certificateFile],
    ],
    { stdio: 'ignore' },
  )
  return { keyFile, certificateFile }
}
