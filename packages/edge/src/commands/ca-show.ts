import { sshFingerprint } from '@postern/shared/certs/ssh-key'
import type { Command } from 'commander'
import { AUTHORITY_KINDS, fingerprintOf, loadAuthority } from '../ca/authorities.ts'
import { FLOW_IDENTITY, loadFlowIdentityKey } from '../ca/flow-identity-keys.ts'
import { generationsOf, readGenerations } from '../ca/generations.ts'
import type { KeyLock } from '../ca/key-file.ts'
import type { RotatedKind } from '../ca/rotate.ts'
import { isSshGenerationKind, loadSshAuthority, SSH_GENERATION_KINDS } from '../ca/ssh-authorities.ts'
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
The lines of the CAs of ssh: postern-edge ca ssh show.

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

async function describe(dataDir: string, lock: KeyLock | undefined) {
  const kinds = await readGenerations(dataDir)
  const now = Date.now()
  const rows = ([...AUTHORITY_KINDS, ...SSH_GENERATION_KINDS, FLOW_IDENTITY] as const).flatMap((kind) => {
    const generations = generationsOf(kinds, kind)
    return generations.all.map(async (generation) => {
      const state = generations.stateOf(generation, now)
      const facts =
        state === 'retired'
          ? { expiresAt: null, fingerprint: null } // its files may have gone
          : await readFacts(dataDir, kind, { name: generation.name, lock })
      return { kind, ...generation, state, ...facts }
    })
  })
  return Promise.all(rows)
}

/** A CA of ssh is a key, which does not expire, and so is that of flow identities. */
async function readFacts(
  dataDir: string,
  kind: RotatedKind,
  named: { name: string; lock: KeyLock | undefined },
) {
  if (isSshGenerationKind(kind)) {
    const { publicKey } = await loadSshAuthority(dataDir, kind, named)
    return { expiresAt: null, fingerprint: sshFingerprint(publicKey.blob) }
  }
  if (kind === FLOW_IDENTITY) {
    return { expiresAt: null, fingerprint: (await loadFlowIdentityKey(dataDir, named)).id }
  }
  const authority = await loadAuthority(dataDir, kind, named)
  return { expiresAt: authority.certificate.notAfter.getTime(), fingerprint: fingerprintOf(authority) }
}
