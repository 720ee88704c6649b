import { cp, mkdir, readdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { loadConfig } from '../config/load.ts'
import { explainDisk } from '../private-file.ts'
import type { ProgramParts } from '../program.ts'
import { backUpSqlite } from '../store/backup.ts'
import { configOption } from './options.ts'

export function addStoreBackup(group: Command, parts: ProgramParts): void {
  group
    .command('backup')
    .description('copy keys and store into a new folder, also while the edge runs')
    .addOption(configOption())
    .requiredOption('--to <dir>', 'the folder to make; it must not be there')
    .addHelpText(
      'after',
      `
The folder is a complete data_dir: restored, everybody's sessions, services and connectors go on. It holds the keys of
the edge's CAs, so keep it like them. Of a store on PostgreSQL it has the keys only; use pg_dump beside it.

Examples:
  $ postern-edge store backup --config /etc/postern-edge/edge.yaml --to /var/backups/postern-edge/$(date +%F)`,
    )
    .action(async (options: { config: string; to: string }) => {
      const { dataDir, store } = loadConfig(options.config)
      const to = path.resolve(parts.cwd, options.to)
      const file = store.startsWith('sqlite:') ? store.slice('sqlite:'.length) : undefined
      await backUp({ dataDir, file, to })
      parts.stderr.write(
        file === undefined
          ? `postern-edge: copied the keys to ${to}; the store is not in ${dataDir}, use its own tool\n`
          : `postern-edge: copied keys and store to ${to}\n`,
      )
    })
}

/** The folder appears whole or not at all.
 *  @throws USAGE_INVALID when it is there · STATE_INVALID when the copy is not sound */
async function backUp(parts: { dataDir: string; file: string | undefined; to: string }): Promise<void> {
  const { dataDir, file, to } = parts
  const draft = `${to}.partial`
  await makeEmptyFolder(to, draft)
  try {
    // the store first: keys are older than what hangs on them
    if (file !== undefined) await backUpSqlite(file, path.join(draft, path.basename(file)))
    await copyKeys(dataDir, draft, file)
    await rename(draft, to)
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    throw explainDisk(to, error)
  }
}

async function makeEmptyFolder(to: string, draft: string): Promise<void> {
  const refuse = (reason: string, cause?: unknown): never => {
    throw new PosternError('USAGE_INVALID', `${to} ${reason}`, {
      hint: 'name another folder with --to',
      cause,
    })
  }
  try {
    await mkdir(path.dirname(to), { recursive: true, mode: 0o700 })
    if ((await readdir(path.dirname(to))).includes(path.basename(to)))
      refuse('is there already and is not overwritten')
    await mkdir(draft, { mode: 0o700 })
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    const failure = explainDisk(to, cause)
    if (failure instanceof PosternError) throw failure
    refuse(code === 'EEXIST' ? 'is being written by another backup' : `cannot be made (${code})`, cause)
  }
}

/** Everything in `data_dir` but the store: SQLite's files may only be copied by SQLite. */
async function copyKeys(dataDir: string, draft: string, file: string | undefined): Promise<void> {
  const isStore = (name: string) =>
    file !== undefined && [file, `${file}-wal`, `${file}-shm`, `${file}-journal`].includes(name)
  for (const entry of await readdir(dataDir, { withFileTypes: true })) {
    const source = path.join(dataDir, entry.name)
    if (isStore(source) || !(entry.isFile() || entry.isDirectory())) continue
    if (path.resolve(source) === draft) continue
    await cp(source, path.join(draft, entry.name), { recursive: true, preserveTimestamps: true })
  }
}
