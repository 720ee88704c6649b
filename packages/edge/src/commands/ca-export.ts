import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { AUTHORITY_KINDS, type AuthorityKind, rootOf } from '../ca/authorities.ts'
import { generationsOf, readGenerations } from '../ca/generations.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption } from './options.ts'

export function addCaExport(group: Command, parts: ProgramParts): void {
  group
    .command('export')
    .description('print the certificates of the CAs of one kind that are believed now (PEM); never a key')
    .addOption(configOption())
    .addOption(
      new Option('--kind <kind>', 'edge: what clients trust; client, connector: for who checks certificates')
        .choices(AUTHORITY_KINDS)
        .default('edge' satisfies AuthorityKind),
    )
    .option('--out <file>', 'write them there')
    .addHelpText(
      'after',
      `
Needs no passphrase. During a rotation there are several, the newest last.

Examples:
  $ postern-edge ca export --config /etc/postern-edge/edge.yaml --out edge-ca.pem
  $ postern-edge ca export --config /etc/postern-edge/edge.yaml --kind client > client-ca.pem`,
    )
    .action(async (options: { config: string; kind: AuthorityKind; out?: string }) => {
      const { dataDir } = loadConfig(options.config)
      const pems = await readTrustedRoots(dataDir, options.kind)
      if (options.out === undefined) parts.stdout.write(pems)
      else await writeFile(path.resolve(parts.cwd, options.out), pems, { mode: 0o644 })
    })
}

/** PEM, one after the other. @throws STATE_INVALID */
export async function readTrustedRoots(dataDir: string, kind: AuthorityKind): Promise<string> {
  const generations = generationsOf(await readGenerations(dataDir), kind)
  const names = generations.trusted(Date.now()).map(({ name }) => name)
  const chains = await Promise.all(names.map((name) => readPem(path.join(dataDir, 'ca', `${name}.pem`))))
  return [...new Set(chains.map(rootOf))].join('')
}

async function readPem(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new PosternError('STATE_INVALID', `${file} cannot be read (${cause.code})`, {
      hint: 'postern-edge serve makes the CAs at its first start, postern-edge ca init without one',
      cause,
    })
  })
}
