import { median } from './statistics.ts'

/** One row of the bench: what is measured, what it must reach, and how it came out. */

export interface Scale {
  /** Interleaved rounds where a row has rounds. */
  rounds: number
  /** Sizes that only show that everything runs: the figures mean nothing. */
  quick: boolean
}

export interface Row {
  id: string
  title: string
  /** Names of programs that Debian brings. */
  needs: readonly string[]
  /** Descriptors that one process of it has open; left out where that is no question. */
  openFiles?: number
  run(scale: Scale, say: (line: string) => void): Promise<Measured>
}

export interface Measured {
  figures: Figure[]
  goals: Goal[]
  /** What a reader has to know about this run of the row. */
  notes?: string[]
}

/** One thing measured once in each round. */
export interface Figure {
  name: string
  unit: string
  values: number[]
}

export interface Goal {
  /** "worse direction against the best peer" */
  text: string
  value: number
  unit: string
  relation: 'at least' | 'at most'
  limit: number
}

export function isReached({ value, relation, limit }: Goal): boolean {
  return relation === 'at least' ? value >= limit : value <= limit
}

/** Figures by name, filled round by round. */
export class Figures {
  readonly #figures = new Map<string, Figure>()

  add(name: string, unit: string, value: number): void {
    const figure = this.#figures.get(name) ?? { name, unit, values: [] }
    figure.values.push(value)
    this.#figures.set(name, figure)
  }

  median(name: string): number {
    const figure = this.#figures.get(name)
    if (!figure) throw new Error(`${name} was not measured`)
    return median(figure.values)
  }

  all(): Figure[] {
    return [...this.#figures.values()]
  }
}
