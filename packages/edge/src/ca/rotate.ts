import { rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { type AuthorityKind, addAuthority } from './authorities.ts'
import { Generations, generationsOf, readGenerations, writeGenerations } from './generations.ts'
import type { KeyLock } from './key-file.ts'

/** Puts new CAs in the place of old ones without an outage: for a time both are believed. It writes keys and dates; the
 *  edges that read them do the rest by their clock. */
export interface RotationTimes {
  now: number
  /** How long the new one is believed before it signs: so long its files may take to every edge. */
  signsInMs: number
  /** How long the old one is believed after that. */
  overlapMs: (kind: AuthorityKind) => number
}

/** Several kinds, or none when one of them cannot be.
 *  @throws CA_ROTATING one of them is being rotated · STATE_INVALID */
export async function rotateAuthorities(
  dataDir: string,
  kinds: readonly AuthorityKind[],
  { now, signsInMs, overlapMs, lock }: RotationTimes & { lock: KeyLock | undefined },
): Promise<void> {
  const before = await readGenerations(dataDir)
  for (const kind of kinds) requireSettled(kind, generationsOf(before, kind), now)
  const after = new Map(before)
  const retired: string[] = []
  for (const kind of kinds) {
    const generations = generationsOf(before, kind)
    const isRetired = (generation: Generations['all'][number]) =>
      generations.stateOf(generation, now) === 'retired'
    retired.push(...generations.all.filter(isRetired).map(({ name }) => name))
    const kept = new Generations(generations.all.filter((generation) => !isRetired(generation)))
    const name = await addAuthority(dataDir, kind, now, lock)
    after.set(kind, kept.succeededBy(name, { signsFrom: now + signsInMs, overlapMs: overlapMs(kind) }))
  }
  await writeGenerations(dataDir, after)
  // nobody believes them any more: their keys are of use to a thief only
  for (const name of retired) {
    for (const suffix of ['key', 'pem']) {
      await rm(path.join(dataDir, 'ca', `${name}.${suffix}`), { force: true })
    }
  }
}

/** From now on nobody believes those that have signed before: for a key that was stolen.
 *  @returns how many that are */
export async function endOverlap(
  dataDir: string,
  kinds: readonly AuthorityKind[],
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

function requireSettled(kind: AuthorityKind, generations: Generations, now: number): void {
  const [oldest, another] = generations.trusted(now)
  if (!another) return
  const until = new Date(oldest!.trustedUntil ?? now).toISOString()
  throw new PosternError('CA_ROTATING', `the ${kind} CA is being rotated until ${until}`)
}
