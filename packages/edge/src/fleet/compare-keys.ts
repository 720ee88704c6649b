import { Generations } from '../ca/generations.ts'
import type { KeyRing } from '../store/edge-keys.ts'

/** Two edges have other keys for something: what one of them signs, the other refuses. */
export interface KeyDifference {
  /** What for: `client`, `ssh-user`. */
  kind: string
  /** Epoch milliseconds; now, or later. */
  from: number
}

/** @returns one for each kind that is not the same for good. What only one of them knows is of a newer version than the
 *  other, which cannot refuse it */
export function compareKeys(mine: KeyRing, theirs: KeyRing, now: number): KeyDifference[] {
  return Object.entries(mine).flatMap(([kind, keys]) => {
    const others = theirs[kind]
    const from = others && firstDifference(new Generations(keys), new Generations(others), now)
    return from === undefined ? [] : [{ kind, from }]
  })
}

function firstDifference(mine: Generations, theirs: Generations, now: number): number | undefined {
  const dates = [...mine.all, ...theirs.all].flatMap(({ signsFrom, trustedUntil }) => [
    signsFrom,
    trustedUntil ?? now,
  ])
  const moments = [now, ...dates.filter((date) => date > now).sort((a, b) => a - b)]
  return moments.find((moment) => inUse(mine, moment) !== inUse(theirs, moment))
}

/** What has signed and is believed. One that will sign later is not missed by whoever does not have it yet. */
function inUse(keys: Generations, moment: number): string {
  const used = keys.trusted(moment).filter((key) => keys.stateOf(key, moment) !== 'next')
  return [...new Set(used.map(({ name }) => name))].sort().join(' ')
}
