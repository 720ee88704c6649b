import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { findFreePort } from '../../demo/free-port.ts'
import { startPrivateSshd } from '../../demo/private-sshd.ts'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { type Chain, startChain } from './chain.ts'

/** `ssh -R` beside the service and `ssh -L` at the client, through one sshd. */
export async function startSshChain(target: number): Promise<Chain> {
  const sshd = await startPrivateSshd(makeTempFolder('sshd'))
  const knownHosts = path.join(sshd.folder, 'known_hosts')
  writeFileSync(knownHosts, `[127.0.0.1]:${sshd.port} ${sshd.hostKey}\n`)
  const [middle, port] = [await findFreePort(), await findFreePort()]
  const forward = (...args: string[]) =>
    new Program('ssh', [
      ...['-F', 'none', '-N', '-p', String(sshd.port), '-i', sshd.keyFile, '-o', 'IdentitiesOnly=yes'],
      ...[
        '-o',
        'IdentityAgent=none',
        '-o',
        `UserKnownHostsFile=${knownHosts}`,
        '-o',
        'ExitOnForwardFailure=yes',
      ],
      ...[...args, `${sshd.user}@127.0.0.1`],
    ])
  const back = forward('-R', `127.0.0.1:${middle}:127.0.0.1:${target}`)
  const there = forward('-L', `127.0.0.1:${port}:127.0.0.1:${middle}`)
  return startChain(port, [there, back, sshd.program], [middle, port])
}
