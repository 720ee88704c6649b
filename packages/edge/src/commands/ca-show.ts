import type { Command } from 'commander'
import { AUTHORITY_KINDS, fingerprintOf, loadAuthority } from '../ca/authorities.ts'
import { generationsOf, readGenerations } from '../ca/generations.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { configOption } from './options.ts'

export function addCaShow(group: Command, parts: ProgramParts): void {
  group
    .command('show')
    .description('list the CAs of the edge: which signs, which are believed, and until when')
    .addOption(configOption())
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
next: believed, and does not sign yet. signs. trusted: has signed, and is believed still. retired: is believed no more.
The CAs of ssh: postern-edge ca ssh show.

Examples:
  $ postern-edge ca show --config /etc/postern-edge/edge.yaml`,
    )
    .action(async (options: { config: string; json?: boolean }) => {
      const { dataDir, ca } = loadConfig(options.config)
      const rows = await describe(dataDir, ca.keyLock)
      if (options.json) return void parts.stdout.write(`${JSON.stringify({ authorities: rows }, null, 2)}\n`)
      const day = (at: number | null) => (at === null ? '-' : new Date(at).toISOString())
      for (const { kind, name, state, signsFrom, trustedUntil, expiresAt, fingerprint } of rows) {
        parts.stdout.write(
          `${kind} ${name}: ${state}\n  signs from     ${signsFrom === 0 ? 'the beginning' : day(signsFrom)}\n` +
            `  believed until ${day(trustedUntil)}\n  expires        ${day(expiresAt)}\n  fingerprint    ${fingerprint ?? '-'}\n`,
        )
      }
    })
}

async function describe(dataDir: string, lock: Parameters<typeof loadAuthority>[2]['lock']) {
  const kinds = await readGenerations(dataDir)
  const now = Date.now()
  const rows = AUTHORITY_KINDS.flatMap((kind) => {
    const generations = generationsOf(kinds, kind)
    return generations.all.map(async (generation) => {
      const state = generations.stateOf(generation, now)
      const authority =
        state === 'retired'
          ? undefined // its files may have gone
          : await loadAuthority(dataDir, kind, { name: generation.name, lock })
      return {
        kind,
        ...generation,
        state,
        expiresAt: authority?.certificate.notAfter.getTime() ?? null,
        fingerprint: authority ? fingerprintOf(authority) : null,
      }
    })
  })
  return Promise.all(rows)
}
