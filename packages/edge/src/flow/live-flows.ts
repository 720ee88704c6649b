import { randomUUID } from 'node:crypto'
import type { PosternError } from '@postern/shared/errors'
import type { PolicyContext } from '../policy/conditions.ts'

/** What is known of a flow so far; filled in step by step while it is decided. */
export interface FlowFacts {
  identityId?: string
  sessionId?: string
  certificateSerial?: string
  serviceId?: string
  connectorId?: string
}

/** One flow, from its handshake to its end. Whoever revokes something aborts the flows it touches through
 *  `signal`, whether they are already relayed or still being decided. */
export class LiveFlow implements Disposable {
  readonly id: string = randomUUID()
  readonly startedAt: number
  readonly facts: FlowFacts = {}
  /** What policy reads beside the person; known once they are identified. */
  context: PolicyContext = {}
  readonly #abort = new AbortController()
  readonly #leave: (flow: LiveFlow) => void

  constructor(startedAt: number, leave: (flow: LiveFlow) => void) {
    this.startedAt = startedAt
    this.#leave = leave
  }

  /** Aborted with a PosternError as its reason. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  cut(reason: PosternError): void {
    this.#abort.abort(reason)
  }

  [Symbol.dispose](): void {
    this.#leave(this)
  }
}

/** The index of every flow that is being decided or relayed. */
export class LiveFlows {
  readonly #flows = new Set<LiveFlow>()
  readonly #clock: () => number
  #whenEmpty: (() => void)[] = []

  constructor(clock: () => number) {
    this.#clock = clock
  }

  get size(): number {
    return this.#flows.size
  }

  enter(): LiveFlow {
    const flow = new LiveFlow(this.#clock(), (left) => this.#leave(left))
    this.#flows.add(flow)
    return flow
  }

  /** Flows for which every given fact holds. */
  where(facts: FlowFacts): LiveFlow[] {
    const wanted = Object.entries(facts) as [keyof FlowFacts, string][]
    return [...this.#flows].filter((flow) => wanted.every(([key, value]) => flow.facts[key] === value))
  }

  /** Ends every flow for which the given facts hold.
   *  @returns how many */
  cutWhere(facts: FlowFacts, reason: PosternError): number {
    const touched = this.where(facts)
    for (const flow of touched) flow.cut(reason)
    return touched.length
  }

  /** Resolves once no flow is left. */
  drained(): Promise<void> {
    if (this.#flows.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#whenEmpty.push(resolve))
  }

  #leave(flow: LiveFlow): void {
    this.#flows.delete(flow)
    if (this.#flows.size > 0) return
    for (const resolve of this.#whenEmpty) resolve()
    this.#whenEmpty = []
  }
}
