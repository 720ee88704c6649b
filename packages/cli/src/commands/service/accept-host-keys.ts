import { parseHostKeyLine } from '@postern/shared/certs/ssh-host-record'
import { sshFingerprint } from '@postern/shared/certs/ssh-key'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { printable, printJson, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addServiceOptions, reachService, type ServiceOptions } from './reach.ts'

async function runAcceptHostKeys(given: string, options: ServiceOptions): Promise<void> {
  const { edge, name } = reachService(given, options)
  const { before, accepted } = await callSignedIn(edge, loginPolicy(options), async (api, session) => {
    const { sshHostKeys } = await api.getService(session, name)
    return { before: sshHostKeys, accepted: await api.acceptSshHostKeys(session, name) }
  })
  if (options.json) return printJson(accepted)
  if (before.pending.length === 0) return tell('no other host keys wait to be accepted')
  tell(`accepted for ${printable(name)}:`)
  for (const line of accepted.keys) tell(`  ${describeHostKey(line)}`)
}

/** `ssh-ed25519 SHA256:…`, as `ssh-keygen -lf` shows it on the server. */
export function describeHostKey(line: string): string {
  const [type = '', encoded = ''] = parseHostKeyLine(line).split(' ')
  return `${type} ${sshFingerprint(Buffer.from(encoded, 'base64'))}`
}

export function addServiceAcceptHostKeys(parent: Command): void {
  const command = parent
    .command('accept-host-keys')
    .description('believe the host keys that the ssh server of a service shows now')
    .argument('<service>', 'its label or full host')
  addServiceOptions(command).action(runAcceptHostKeys)
  addExamples(command, [
    ['see both, then compare with the server: ssh-keygen -lf', 'postern service show crimson-thunder-8434'],
    ['the server was set up anew', 'postern service accept-host-keys crimson-thunder-8434'],
  ])
}
