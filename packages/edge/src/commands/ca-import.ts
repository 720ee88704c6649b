import { readFileSync } from 'node:fs'
import path from 'node:path'
import { unreadableFile } from '@postern/shared/unreadable-file'
import type { Command } from 'commander'
import { importEdgeCa } from '../ca/requested-ca.ts'
import type { EdgeConfig } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import { hasSignedIn } from '../host-user.ts'
import type { ProgramParts } from '../program.ts'
import { openStore } from '../store/open.ts'
import { requireOwner } from './on-host.ts'
import { configOption } from './options.ts'

interface ImportOptions {
  config: string
  certificate: string
  unsafeNewRoot?: boolean
}

export function addCaImport(group: Command, parts: ProgramParts): void {
  group
    .command('import')
    .description('take what a root has signed for postern-edge ca request: it signs for the edge from now on')
    .addOption(configOption())
    .requiredOption('--certificate <file>', 'the CA of the edge and the root that has signed it (PEM)')
    .option(
      '--unsafe-new-root',
      'though people trust another root: everybody has to sign in again, with the new fingerprint',
    )
    .addHelpText(
      'after',
      `
Looks at it as a client would (dates, path lengths, uses, name constraints), and changes nothing where one would refuse it. People
trust the root: with the same one as before nobody notices, and before anybody has signed in it may be another one. A running
edge shows a certificate of the new CA within a second. Several edges: copy DATA_DIR/ca to the others.

Examples:
  $ postern-edge ca import --config /etc/postern-edge/edge.yaml --certificate edge-ca-chain.pem`,
    )
    .action(async (options: ImportOptions) => {
      const config = loadConfig(options.config)
      const { dataDir, domain, ca } = config
      await requireOwner(dataDir)
      const mayChangeRoot = async () => options.unsafeNewRoot === true || !(await isUsed(config))
      const pem = readPem(path.resolve(parts.cwd, options.certificate))
      const settings = { domain, lock: ca.keyLock, now: Date.now(), mayChangeRoot }
      const fingerprint = await importEdgeCa(dataDir, pem, settings)
      parts.stderr.write(
        `postern-edge: the new CA signs for the edge from now on; people trust ${fingerprint}\n`,
      )
    })
}

/** Whether there is anybody who may have kept the root. */
async function isUsed({ store: location }: EdgeConfig): Promise<boolean> {
  await using store = await openStore(location)
  return await hasSignedIn(store.db) // before it is closed
}

function readPem(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw unreadableFile(file, cause)
  }
}
