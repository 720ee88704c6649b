import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { findFreePort } from '../../demo/free-port.ts'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { type Chain, makePeerCertificate, startChain } from './chain.ts'

/** Three stunnels, as people build it today: at the client, at the edge (in with TLS, out with TLS) and beside the
 *  service. Each side of each hop shows a certificate and verifies the other's. */
export async function startStunnelChain(target: number): Promise<Chain> {
  const folder = makeTempFolder('stunnel')
  const { keyFile, certificateFile } = makePeerCertificate()
  const [client, edge, between, connector] = [
    await findFreePort(),
    await findFreePort(),
    await findFreePort(),
    await findFreePort(),
  ]
  const service = (name: string, isClient: boolean, accept: number, connect: number) => `[${name}]
client=${isClient ? 'yes' : 'no'}
accept=127.0.0.1:${accept}
connect=127.0.0.1:${connect}
cert=${certificateFile}
key=${keyFile}
CAfile=${certificateFile}
verifyChain=yes
`
  const files = {
    client: service('client', true, client, edge),
    edge: service('in', false, edge, between) + service('out', true, between, connector),
    connector: service('connector', false, connector, target),
  }
  const programs = Object.entries(files).map(([name, text]) => {
    const file = path.join(folder, name)
    const sockets = 'socket=l:TCP_NODELAY=1\nsocket=r:TCP_NODELAY=1\n'
    writeFileSync(file, `foreground=yes\npid=\nsyslog=no\ndebug=err\n${sockets}${text}`)
    return new Program('stunnel', [file])
  })
  return startChain(client, programs, [connector, between, edge, client])
}
