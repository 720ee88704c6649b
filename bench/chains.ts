import { openListener, openPath, type Path } from './path.ts'
import { startBareChain } from './peers/bare-node.ts'
import { startSshChain } from './peers/openssh.ts'
import { startStunnelChain } from './peers/stunnel.ts'

/** The product and its peers, each with a local port that leads to the same service. */
export interface Chains extends AsyncDisposable {
  path: Path
  /** Ports by the name of their chain. */
  ports: Readonly<Record<'postern' | 'bare Node' | 'stunnel' | 'ssh', number>>
}

export const CHAIN_NEEDS: readonly string[] = ['stunnel', 'ssh', 'sshd', 'ssh-keygen', 'openssl']

export async function openChains(): Promise<Chains> {
  await using opened = new AsyncDisposableStack()
  const path = opened.use(await openPath())
  const target = path.service.port
  const ports = {
    postern: opened.use(await openListener(path)).port,
    'bare Node': opened.use(await startBareChain(target)).port,
    stunnel: opened.use(await startStunnelChain(target)).port,
    ssh: opened.use(await startSshChain(target)).port,
  }
  const stack = opened.move()
  return { path, ports, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}
