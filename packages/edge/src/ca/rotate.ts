import { rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import {
  type AuthorityKind,
  type AuthoritySettings,
  addAuthority,
  fingerprintOf,
  isBelowRoot,
  loadAuthorities,
  type Predecessor,
} from './authorities.ts'
import { addFlowIdentityKey, FLOW_IDENTITY, type FlowIdentityKind } from './flow-identity-keys.ts'
import {
  Generations,
  type GenerationsByKind,
  generationsOf,
  readGenerations,
  writeGenerations,
} from './generations.ts'
import type { KeyLock } from './key-file.ts'
import type { OfflineRoot } from './offline-root.ts'
import {
  addSshAuthority,
  isSshGenerationKind,
  type SshCaKeyType,
  type SshGenerationKind,
} from './ssh-authorities.ts'

/** Puts new CAs in the place of old ones without an outage: for a time both are believed. It writes keys and dates; the
 *  edges that read them do the rest by their clock. */
export interface RotationTimes {
  now: number
  /** How long the new one is believed before it signs: so long its files may take to every edge, and the line of an ssh CA
   *  to every server. */
  signsInMs: (kind: RotatedKind) => number
  /** How long the old one is believed after that. */
  overlapMs: (kind: RotatedKind) => number
}

export type RotatedKind = AuthorityKind | SshGenerationKind | FlowIdentityKind

/** Several kinds, or none when one of them cannot be.
 *  @throws CA_ROTATING one of them is being rotated · STATE_INVALID · CONFIG_INVALID a root stands above it */
export async function rotateAuthorities(
  dataDir: string,
  kinds: readonly RotatedKind[],
  { now, signsInMs, overlapMs, ...keys }: RotationTimes & NewKeys,
): Promise<void> {
  const before = await readGenerations(dataDir)
  for (const kind of kinds) requireSettled(kind, generationsOf(before, kind), now)
  const followed = kinds.includes('edge') ? await findPredecessor(dataDir, keys.lock, now) : undefined
  const after = new Map(before)
  for (const kind of kinds) {
    const times = { signsFrom: now + signsInMs(kind), overlapMs: overlapMs(kind) }
    const believedUntil = times.signsFrom + times.overlapMs
    const predecessor = kind === 'edge' && followed ? { authority: followed, believedUntil } : undefined
    const name = await addKey(dataDir, kind, { now, predecessor, ...keys })
    after.set(kind, stillOf(generationsOf(before, kind), now).succeededBy(name, times))
  }
  await replaceGenerations(dataDir, before, after)
}

function addKey(
  dataDir: string,
  kind: RotatedKind,
  {
    now,
    predecessor,
    sshKeyType: keyType,
    lock,
    domain,
  }: NewKeys & { now: number; predecessor: Predecessor | undefined },
): Promise<string> {
  if (kind === FLOW_IDENTITY) return addFlowIdentityKey(dataDir, lock)
  if (isSshGenerationKind(kind)) return addSshAuthority(dataDir, kind, { keyType, lock })
  return addAuthority(dataDir, kind, { now, lock, domain, predecessor })
}

/** How new keys are made and kept. */
export interface NewKeys extends AuthoritySettings {
  sshKeyType: SshCaKeyType
}

/** Clients pin the edge's own CA: it has to lead them to the next one. */
async function findPredecessor(
  dataDir: string,
  lock: KeyLock | undefined,
  now: number,
): Promise<Predecessor['authority']> {
  const { edge } = await loadAuthorities(dataDir, lock, now)
  if (!isBelowRoot(edge)) return edge
  throw new PosternError('CONFIG_INVALID', 'the edge CA stands below a root, which people trust', {
    hint: 'have that root sign a new one, and nobody notices: postern-edge ca issue-intermediate, or ca request',
  })
}

function stillOf(generations: Generations, now: number): Generations {
  return new Generations(generations.trusted(now))
}

/** Those that are named no more are believed by nobody: their keys are of use to a thief only. */
async function replaceGenerations(
  dataDir: string,
  before: GenerationsByKind,
  after: GenerationsByKind,
): Promise<void> {
  await writeGenerations(dataDir, after)
  for (const [kind, { all }] of after) {
    const kept = new Set(all.map(({ name }) => name))
    for (const { name } of generationsOf(before, kind).all) {
      if (kept.has(name)) continue
      for (const suffix of ['key', 'pem', 'cross.pem', 'pub']) {
        await rm(path.join(dataDir, 'ca', `${name}.${suffix}`), { force: true })
      }
    }
  }
}

/** Puts a new CA of the edge's own certificate below the same root. What the old one has signed lies in the memory of edges,
 *  and is replaced there at once.
 *  @returns its name
 *  @throws CONFIG_INVALID people trust another root */
export async function issueIntermediate(
  dataDir: string,
  root: OfflineRoot,
  { now, lock }: { now: number; lock: KeyLock | undefined },
): Promise<string> {
  const { edge } = await loadAuthorities(dataDir, lock, now)
  if (fingerprintOf(edge) !== fingerprintOf(root)) {
    throw new PosternError('CONFIG_INVALID', `people trust another root: ${fingerprintOf(edge)}`, {
      hint: 'name the root that this edge was made with; another one would lock everybody out',
    })
  }
  const name = await addAuthority(dataDir, 'edge', { now, lock, root })
  await useEdgeCa(dataDir, name, now)
  return name
}

/** From now on this one signs for the edge, and no other. */
export async function useEdgeCa(dataDir: string, name: string, now: number): Promise<void> {
  const before = await readGenerations(dataDir)
  const times = { signsFrom: now, overlapMs: 0 }
  const edges = stillOf(generationsOf(before, 'edge'), now).succeededBy(name, times)
  await replaceGenerations(dataDir, before, new Map(before).set('edge', edges))
}

/** From now on nobody believes those that have signed before: for a key that was stolen.
 *  @returns how many that are */
export async function endOverlap(
  dataDir: string,
  kinds: readonly RotatedKind[],
  now: number,
): Promise<number> {
  const before = await readGenerations(dataDir)
  const after = new Map(before)
  let ended = 0
  for (const kind of kinds) {
    const generations = generationsOf(before, kind)
    const all = generations.all.map((generation) => {
      if (generations.stateOf(generation, now) !== 'trusted') return generation
      ended++
      return { ...generation, trustedUntil: now }
    })
    after.set(kind, new Generations(all))
  }
  if (ended > 0) await writeGenerations(dataDir, after)
  return ended
}

/** @throws CA_ROTATING */
export function requireSettled(kind: RotatedKind, generations: Generations, now: number): void {
  const [oldest, another] = generations.trusted(now)
  if (!another) return
  const until = new Date(oldest!.trustedUntil ?? now).toISOString()
  throw new PosternError('CA_ROTATING', `the ${kind} CA is being rotated until ${until}`)
}
