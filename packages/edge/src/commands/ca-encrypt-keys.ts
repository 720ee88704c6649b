import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { relockKeys } from '../ca/key-file.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { requireOwner } from './on-host.ts'
import { configOption, readLock } from './options.ts'

interface EncryptOptions {
  config: string
  oldPassphraseFile?: string
  unsafeDecrypt?: boolean
}

export function addCaEncryptKeys(group: Command, parts: ProgramParts): void {
  group
    .command('encrypt-keys')
    .description('encrypt the keys of the CAs under the passphrase that ca.key_passphrase_file names')
    .addOption(configOption())
    .option('--old-passphrase-file <file>', 'what opens them now, to change the passphrase')
    .addOption(
      new Option(
        '--unsafe-decrypt',
        'write them without encryption instead; then take ca.key_passphrase_file out of the configuration',
      ).conflicts('oldPassphraseFile'),
    )
    .addHelpText(
      'after',
      `
Opens every key first and changes nothing when one does not open. A running edge goes on. Backups from before hold the keys
as they were then.

Examples:
  $ openssl rand -base64 32 | install -m 600 /dev/stdin /etc/postern-edge/ca-passphrase
  $ postern-edge ca encrypt-keys --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: EncryptOptions) => {
      const { ca, dataDir } = loadConfig(options.config)
      if (!ca.keyLock) {
        throw new PosternError('CONFIG_INVALID', 'no passphrase is named', {
          hint: 'name the file with it in the configuration: ca: { key_passphrase_file: … }',
        })
      }
      await requireOwner(dataDir)
      const { oldPassphraseFile: old } = options
      const from = old === undefined ? ca.keyLock : readLock(path.resolve(parts.cwd, old))
      const files = await listKeyFiles(path.join(dataDir, 'ca'))
      const written = await relockKeys(files, { from, to: options.unsafeDecrypt ? undefined : ca.keyLock })
      const how = options.unsafeDecrypt ? 'NOT encrypted any more' : 'encrypted'
      parts.stderr.write(`postern-edge: ${files.length} keys are ${how}, ${written} were written\n`)
    })
}

/** Of CAs, and of flow identities. */
const CA_KEY = /(?:-ca|^flow-identity)(?:-[0-9a-f]{8})?\.key$/

async function listKeyFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((cause: NodeJS.ErrnoException) => {
    throw new PosternError('STATE_INVALID', `${folder} cannot be read (${cause.code})`, {
      hint: 'postern-edge serve makes the keys at its first start, encrypted where a passphrase is named',
      cause,
    })
  })
  return names
    .filter((name) => CA_KEY.test(name))
    .sort()
    .map((name) => path.join(folder, name))
}
