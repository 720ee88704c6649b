import type { KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { formatSigner, signCheckpoint } from '@postern/shared/audit/checkpoint'
import { PosternError } from '@postern/shared/errors'
import { writeWhole } from '../ca/ssh-authorities.ts'
import { openEd25519Key } from '../ed25519-key.ts'
import { makePrivateFolder } from '../private-file.ts'
import type { AuditChain } from '../store/audit-events.ts'
import { newId } from '../store/new-id.ts'
import type { AuditChainStarted, AuditCheckpoint } from './event.ts'
import { toRow } from './to-row.ts'

/** What makes this edge's log its own: the name of its chain, and the key that signs how far it has come. Neither is in
 *  the store: who can write there can write a log anew, but not sign it. */
export interface ChainKeys {
  id: string
  key: KeyObject
  /** `ed25519:…`: what a reader of checkpoints has to know. */
  signer: string
}

export interface ChainSettings {
  id: string
  key: KeyObject
  /** A checkpoint after so many records, or this long after the one before. */
  everyRecords: number
  everyMs: number
}

/** @param clock epoch milliseconds */
export function keepChain(
  { id, key, everyRecords, everyMs }: ChainSettings,
  clock: () => number,
): AuditChain {
  return {
    id,
    begin: (before) =>
      toRow({ type: 'audit.chain_started', chain: id, before } satisfies AuditChainStarted, clock()),
    checkpoint(head, { mustSign }) {
      const at = clock()
      const { position, hash } = head
      const unsigned = position - head.checkpointPosition
      const isDue = mustSign || unsigned >= everyRecords || at - head.checkpointAt >= everyMs
      if (unsigned === 0 || !isDue) return undefined
      const checkpoint = signCheckpoint({ chain: id, position, hash, at }, key)
      return toRow({ type: 'audit.checkpoint', checkpoint } satisfies AuditCheckpoint, at)
    },
  }
}

/** Where the key is unless the configuration says otherwise. */
export function defaultCheckpointKeyFile(dataDir: string): string {
  return path.join(dataDir, 'audit', 'checkpoint.key')
}

/** Loads both, and makes what is missing: an edge that is older than they are gets them at its next start.
 *  @throws CONFIG_INVALID the key is open to others, of another kind, or cannot be made */
export async function openChainKeys(dataDir: string, keyFile: string): Promise<ChainKeys> {
  const folder = path.join(dataDir, 'audit')
  await makePrivateFolder(folder)
  const idFile = path.join(folder, 'chain')
  await writeWhole(idFile, `${newId('chn')}\n`)
  const id = (await readFile(idFile, 'utf8')).trim()
  if (!/^chn_[0-9a-f]{24}$/.test(id)) {
    throw new PosternError('CONFIG_INVALID', `${idFile} holds no name of a chain`, {
      hint: 'bring it back from a backup, or move it away: the edge then begins a new chain',
    })
  }
  const key = await openEd25519Key(keyFile, {
    what: 'the key of checkpoints',
    hint: 'bring it back from a backup, or name another file under audit.checkpoint_key_file: the edge makes an Ed25519 key there',
  })
  return { id, key, signer: formatSigner(key) }
}
