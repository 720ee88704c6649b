import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { type Authority, loadAuthority } from '../ca/authorities.ts'
import { checkCrl, crlToPem } from '../ca/crl.ts'
import { generationsOf, readGenerations } from '../ca/generations.ts'
import type { EdgeConfig } from '../config/config.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { CRL_KINDS, type CrlKind, writeCrl } from '../revocation/crl.ts'
import { openStore } from '../store/open.ts'
import { configOption } from './options.ts'

interface CrlOptions {
  config: string
  kind: CrlKind
  format: 'pem' | 'der'
  out?: string
  check?: string
}

export function addCaCrl(group: Command, parts: ProgramParts): void {
  group
    .command('crl')
    .description('sign the list of revoked certificates as it is now (PEM on stdout), or check a copy of it')
    .addOption(configOption())
    .addOption(
      new Option('--kind <kind>', 'whose certificates')
        .choices(CRL_KINDS)
        .default('client' satisfies CrlKind),
    )
    .addOption(new Option('--format <format>', 'of the list').choices(['pem', 'der']).default('pem'))
    .option('--out <file>', 'write it there; DER needs one')
    .addOption(
      new Option('--check <file>', 'sign nothing: is this copy ours, and still good?').conflicts('out'),
    )
    .addHelpText(
      'after',
      `
The running edge gives the same list to everybody: https://DOMAIN/v1/crl/client.crl (DER) and client.pem, likewise
connector and workload. It needs no list itself: it refuses what is revoked at once.

Examples:
  $ postern-edge ca crl --config /etc/postern-edge/edge.yaml | openssl crl -noout -text
  $ postern-edge ca crl --config /etc/postern-edge/edge.yaml --format der --out /var/www/client.crl
  $ postern-edge ca crl --config /etc/postern-edge/edge.yaml --check /etc/stunnel/client.pem`,
    )
    .action(async (options: CrlOptions) => {
      const config = loadConfig(options.config)
      const { signing, trusted } = await loadTrusted(config, options.kind)
      if (options.check !== undefined) return checkCopy(options.check, trusted, parts)
      if (options.format === 'der' && options.out === undefined) {
        throw new PosternError('USAGE_INVALID', 'DER is not for a terminal', {
          hint: 'name a file with --out',
        })
      }
      await using store = await openStore(config.store)
      const der = await writeCrl(signing, options.kind, { db: store.db, clock: Date.now, config })
      const written = options.format === 'der' ? der : crlToPem(der)
      if (options.out === undefined) parts.stdout.write(written.toString())
      else await writeFile(path.resolve(parts.cwd, options.out), written, { mode: 0o644 })
    })
}

async function loadTrusted({ dataDir, ca }: EdgeConfig, kind: CrlKind) {
  const generations = generationsOf(await readGenerations(dataDir), kind)
  const load = ({ name }: { name: string }) => loadAuthority(dataDir, kind, { name, lock: ca.keyLock })
  const now = Date.now()
  const [signing, ...trusted] = await Promise.all(
    [generations.signing(now), ...generations.trusted(now)].map(load),
  )
  return { signing: signing!, trusted }
}

async function checkCopy(
  file: string,
  authorities: readonly Authority[],
  parts: ProgramParts,
): Promise<void> {
  const bytes = await readFile(path.resolve(parts.cwd, file)).catch((cause: NodeJS.ErrnoException) => {
    throw new PosternError('USAGE_INVALID', `${file} cannot be read (${cause.code})`, { cause })
  })
  const { nextUpdate, entries } = await checkCrl(bytes, authorities, Date.now())
  parts.stderr.write(
    `postern-edge: ${file} is good until ${nextUpdate.toISOString()}, ${entries} certificates\n`,
  )
}
