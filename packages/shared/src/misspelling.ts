/** Whether a word may be the other one with a slip: at most two letters are more, missing or others. */
export function isMisspelling(typed: string, known: string): boolean {
  return Math.abs(known.length - typed.length) <= MAX_SLIPS && distance(known, typed) <= MAX_SLIPS
}

/** What a complaint about an unknown word ends with: `, did you mean local?`, or nothing. */
export function suggest(typed: string, known: readonly string[]): string {
  return askWhether(known.filter((word) => isMisspelling(typed, word)))
}

export function askWhether(meant: readonly string[]): string {
  return meant.length === 0 ? '' : `, did you mean ${meant.join(' or ')}?`
}

const MAX_SLIPS = 2

/** Levenshtein. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}
