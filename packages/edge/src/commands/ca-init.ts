import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { createAuthorities, fingerprintOf } from '../ca/authorities.ts'
import { createRoot, type OfflineRoot } from '../ca/offline-root.ts'
import { openSshAuthorities } from '../ca/ssh-authorities.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption, type RootOptions, readRootOptions, rootOptions } from './options.ts'

export function addCaInit(group: Command, parts: ProgramParts): void {
  const command = group
    .command('init')
    .description('make the CAs before the first start, as serve would')
    .addOption(configOption())
  for (const option of rootOptions()) command.addOption(option)
  command
    .addHelpText(
      'after',
      `
Their keys are encrypted when ca.key_passphrase_file names a passphrase. Never overwrites any. With --offline-root the CA of
the edge's own certificate stands below a root in a folder of its own: people trust that, and it is needed again only for
postern-edge ca issue-intermediate.

Examples:
  $ postern-edge ca init --config /etc/postern-edge/edge.yaml
  $ postern-edge ca init --config /etc/postern-edge/edge.yaml \\
      --offline-root /media/stick/postern-root --root-passphrase-file /media/stick/passphrase`,
    )
    .action(async (options: { config: string } & RootOptions) => {
      const { dataDir, domain, ca, ssh } = loadConfig(options.config)
      const root = await makeRoot(options, parts.cwd)
      const { edge } = await createAuthorities(dataDir, Date.now(), { lock: ca.keyLock, root, domain })
      await openSshAuthorities(dataDir, ssh.caKeyType, ca.keyLock)
      const how = ca.keyLock ? 'encrypted' : 'not encrypted'
      parts.stderr.write(
        `postern-edge: wrote the CAs to ${dataDir}/ca, ${how}; people trust ${fingerprintOf(edge)}\n`,
      )
    })
}

/** @throws USAGE_INVALID a root without a passphrase: it lies where nobody looks after it */
async function makeRoot(
  { offlineRoot, rootPassphraseFile }: RootOptions,
  cwd: string,
): Promise<OfflineRoot | undefined> {
  if (offlineRoot === undefined && rootPassphraseFile === undefined) return undefined
  if (offlineRoot === undefined || rootPassphraseFile === undefined) {
    throw new PosternError('USAGE_INVALID', '--offline-root and --root-passphrase-file belong together')
  }
  const { folder, lock } = readRootOptions({ offlineRoot, rootPassphraseFile }, cwd)
  return createRoot(folder, Date.now(), lock)
}
