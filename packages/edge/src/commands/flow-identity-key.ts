import { createPublicKey } from 'node:crypto'
import { flowIdentityJwk } from '@postern/shared/proxy-protocol/flow-identity'
import type { Command } from 'commander'
import { loadConfig } from '../config/load.ts'
import { openFlowIdentityKey } from '../flow/identity-key.ts'
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
Makes the key when data_dir has none yet, as serve does. It signs nothing else: postern connect --proxy-protocol v2
brings what it signs to the service.

Examples:
  $ postern-edge flow-identity key --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { key } = await openFlowIdentityKey(loadConfig(options.config).dataDir)
      const pem = () => createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()
      parts.stdout.write(
        options.json ? `${JSON.stringify({ keys: [flowIdentityJwk(key)] }, null, 2)}\n` : pem(),
      )
    })
}
