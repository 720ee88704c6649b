import { createPublicKey } from 'node:crypto'
import { type FlowIdentityKey, flowIdentityJwk } from '@postern/shared/proxy-protocol/flow-identity'
import type { Command } from 'commander'
import { readFlowIdentityKeys } from '../ca/flow-identity-keys.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption } from './options.ts'

export function addFlowIdentityKey(group: Command, parts: ProgramParts): void {
  group
    .command('key')
    .description('print the public key with which services check the identity in a PROXY header')
    .addOption(configOption())
    .option('--json', 'print a JWK Set, as https://DOMAIN/v1/flow-identity-keys shows it')
    .addHelpText(
      'after',
      `
Makes the key when data_dir has none yet, as serve does. While a new one takes over (postern-edge ca rotate --kind
flow-identity) there are several, the newest last; believe all of them. It signs nothing else: postern connect --proxy-protocol v2
brings what it signs to the service.

Examples:
  $ postern-edge flow-identity key --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { dataDir, ca } = loadConfig(options.config)
      const keys = await readFlowIdentityKeys(dataDir, ca.keyLock, Date.now())
      const jwks = () => JSON.stringify({ keys: keys.map(({ key }) => flowIdentityJwk(key)) }, null, 2)
      const toPem = ({ key }: FlowIdentityKey) => createPublicKey(key).export({ type: 'spki', format: 'pem' })
      parts.stdout.write(options.json ? `${jwks()}\n` : keys.map(toPem).join(''))
    })
}
