import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { readSecret } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { copyStore } from '../store/copy.ts'
import { describeStore, parseStoreLocation, withPassword } from '../store/location.ts'

interface CopyOptions {
  from: string
  to: string
  toPasswordFile?: string
}

export function addStoreCopy(group: Command, parts: ProgramParts): void {
  group
    .command('copy')
    .description('move an installation from SQLite to PostgreSQL')
    .requiredOption('--from <store>', 'sqlite:PATH')
    .requiredOption('--to <store>', 'postgres://USER@HOST/DATABASE, an empty database')
    .option('--to-password-file <file>', 'file with the password of the database')
    .addHelpText(
      'after',
      `
Stop the edge first. Copies every table, compares the counts, and keeps nothing when something is wrong; the old store
stays as it is. Then name the new one under store in the configuration file. The keys stay in data_dir.

Examples:
  $ postern-edge store copy --from sqlite:/var/lib/postern-edge/edge.sqlite \\
      --to postgres://postern@db.mycorp.com/postern --to-password-file /etc/postern-edge/store-password`,
    )
    .action(async (options: CopyOptions) => {
      const to = readTarget(options)
      await copyStore(options.from, to, (table, rows) =>
        parts.stderr.write(`postern-edge: ${table}: ${rows} rows\n`),
      )
      parts.stderr.write(`postern-edge: copied to ${describeStore(to)}\n`)
    })
}

/** @throws USAGE_INVALID also for a password on the command line, which everybody on the machine can read */
function readTarget({ to, toPasswordFile }: CopyOptions): string {
  try {
    const location = parseStoreLocation(to)
    if (location.kind === 'postgres' && location.password !== undefined) {
      throw new Error('has a password, which every process here can see: use --to-password-file')
    }
    return toPasswordFile === undefined ? to : withPassword(to, readSecret(toPasswordFile))
  } catch (error) {
    throw new PosternError('USAGE_INVALID', `--to ${(error as Error).message}`)
  }
}
