import { type ConnectedService, connectService } from '../test/support/connect-service.ts'
import { makePerson } from '../test/support/dev-browser.ts'
import { type EdgeProcess, startEdge } from '../test/support/edge-process.ts'
import { type Listener, startListener } from '../test/support/listen.ts'
import { runPostern } from '../test/support/postern.ts'
import { clientCertificateOf, type KeyAndCertificate } from '../test/support/tls-peer.ts'
import { type BenchService, ECHO_ONE, startService } from './service.ts'

/** The product as people run it, from its built programs: edge, connector, a person who is signed in. */
export interface Path extends AsyncDisposable {
  /** The one that runs now. */
  readonly edge: EdgeProcess
  /** Ends the edge and starts it again at the same port and with the same store.
   *  @param between works on the store meanwhile */
  restartEdge(end: (edge: EdgeProcess) => Promise<void>, between?: () => void): Promise<void>
  service: BenchService
  connector: ConnectedService
  host: string
  /** State folder of the person. */
  home: string
  /** The certificate of the person for the service. */
  identity: KeyAndCertificate
}

/** Nothing but what a bench needs beyond what a person may: more flows and certificates in a minute, and a certificate
 *  that lasts as long as a row. */
const CONFIG = {
  certificates: { ttl: '1h' },
  limits: { flows_per_minute: 1_000_000, certificates_per_minute: 1_000_000, max_flows: 20_000 },
}

/** @param config more keys of the edge */
export async function openPath(config: Record<string, unknown> = {}): Promise<Path> {
  await using opened = new AsyncDisposableStack()
  const service = opened.use(await startService())
  const start = (again: { dataDir?: string; port?: number } = {}) =>
    startEdge({ config: { ...CONFIG, ...config }, keepsPort: true, ...again })
  let edge = await start()
  opened.defer(() => edge[Symbol.asyncDispose]())
  const home = await makePerson(edge, 'operator@mycorp.com')
  const connector = opened.use(await connectService({ home, port: service.port }))
  const { host, label } = connector
  const identity = await obtainCertificate(home, { host, label })
  const stack = opened.move()
  return {
    ...{ service, connector, host, home, identity },
    get edge() {
      return edge
    },
    async restartEdge(end, between = () => {}) {
      await end(edge)
      between()
      edge = await start({ dataDir: edge.dataDir, port: edge.port })
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** Has `postern client tls` get the person's certificate for the service. */
export async function obtainCertificate(
  home: string,
  { host, label }: { host: string; label: string },
): Promise<KeyAndCertificate> {
  const result = await runPostern(['client', 'tls', '--host', host], { home, stdin: ECHO_ONE })
  if (result.code !== 0) throw new Error(`postern client tls failed\n${result.stderr}`)
  return clientCertificateOf(home, label)
}

export function openListener({ home, host }: Path): Promise<Listener> {
  return startListener({ home, host })
}
