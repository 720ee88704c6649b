import {
  type OtherEdges,
  REVOCATION_POINTS,
  type RevocationPoint,
  type RevocationResponse,
} from '@postern/shared/api/revocations'

/** What one revocation did: how many at each point where something is enforced, and when that was done. */
export class Receipt {
  readonly #counts = new Map<RevocationPoint, number>(REVOCATION_POINTS.map((point) => [point, 0]))
  readonly #at: RevocationResponse['at'] = {}
  readonly #clock: () => number

  constructor(clock: () => number) {
    this.#clock = clock
  }

  /** May be called again for one point: the numbers add up, and the last time counts. */
  note(point: RevocationPoint, count: number): void {
    this.#counts.set(point, this.#counts.get(point)! + count)
    if (count > 0 || this.#at[point] === undefined) this.#at[point] = this.#clock()
  }

  /** @param otherEdges left out where there are none */
  finish(krlVersion: number, otherEdges: OtherEdges): RevocationResponse {
    const counts = Object.fromEntries(this.#counts) as Record<RevocationPoint, number>
    const others = otherEdges.told > 0 ? { otherEdges } : {}
    return { ...counts, krlVersion, at: { ...this.#at }, ...others }
  }
}
