import { randomUUID } from 'node:crypto'
import type { PosternError } from '@postern/shared/errors'
import type { PolicyContext } from '../policy/conditions.ts'
import type { Program } from '../policy/evaluate.ts'

/** What is known of a flow so far; filled in step by step while it is decided, each fact before anything that
 *  depends on it is read. */
export interface FlowFacts {
  identityId?: string | undefined
  sessionId?: string | undefined
  certificateSerial?: string | undefined
  serviceId?: string | undefined
  connectorId?: string | undefined
  /** Of the connector's process; the id of its attachment where it does not say. */
  instanceId?: string | undefined
}

type Fact = keyof FlowFacts
const FACTS = [
  'identityId',
  'sessionId',
  'certificateSerial',
  'serviceId',
  'connectorId',
  'instanceId',
] as const satisfies readonly Fact[]

/** What people are told of a flow. */
export interface FlowAbout {
  email: string
  label: string
  /** With port. */
  clientAddress: string
}

/** One flow, from its handshake to its end. Whoever revokes something aborts the flows it touches through
 *  `signal`, whether they are already relayed or still being decided. */
export class LiveFlow implements Disposable {
  readonly id: string = randomUUID()
  readonly startedAt: number
  /** Assigning one puts the flow into the index under it, in the same turn. */
  readonly facts: FlowFacts
  /** What policy reads beside the person. Complete once the flow is admitted. */
  context: PolicyContext = {}
  /** What its certificate says of a program; undefined for people, who are read anew each time it is decided. */
  program: Program | undefined
  /** Known once it is admitted. */
  about: FlowAbout | undefined
  /** Decide again then, at the latest; epoch milliseconds. */
  decideAgainAt: number | undefined
  onLeave: (() => void) | undefined
  /** Read from its connector so far, headers and all: what grows comes from a machine that is there. */
  bytesFromConnector: () => number = () => 0
  readonly #abort = new AbortController()
  readonly #leave: (flow: LiveFlow) => void
  #isAdmitted = false
  #changes = 0

  constructor(startedAt: number, index: FactIndex, leave: (flow: LiveFlow) => void) {
    this.startedAt = startedAt
    this.facts = index.factsOf(this)
    this.#leave = leave
  }

  /** Aborted with a PosternError as its reason. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Whether the policy has let it in. Until then whoever changes something lets it decide again instead of
   *  deciding for it: what they would need to know is not known yet. */
  get isAdmitted(): boolean {
    return this.#isAdmitted
  }

  /** Grows with every change that may matter to what is being decided. */
  get changes(): number {
    return this.#changes
  }

  /** Something that it may have read has changed since. */
  noteChange(): void {
    this.#changes++
  }

  admit(context: PolicyContext): void {
    this.context = context
    this.#isAdmitted = true
  }

  /** @returns whether this ended it: not when something else had before */
  cut(reason: PosternError): boolean {
    if (this.#abort.signal.aborted) return false
    this.#abort.abort(reason)
    return true
  }

  [Symbol.dispose](): void {
    this.onLeave?.()
    this.#leave(this)
  }
}

/** Flows by each of their facts: what a change touches is found without looking at the others. */
class FactIndex {
  readonly #flows = new Map<Fact, Map<string, Set<LiveFlow>>>(FACTS.map((fact) => [fact, new Map()]))
  readonly #gone = new WeakSet<LiveFlow>()

  /** An object whose members are indexed when they are assigned. */
  factsOf(flow: LiveFlow): FlowFacts {
    const values: FlowFacts = {}
    const facts: FlowFacts = {}
    for (const fact of FACTS) {
      Object.defineProperty(facts, fact, {
        enumerable: true,
        get: () => values[fact],
        set: (value: string | undefined) => {
          this.#remove(fact, values[fact], flow)
          values[fact] = value
          if (value !== undefined && !this.#gone.has(flow)) this.#add(fact, value, flow)
        },
      })
    }
    return facts
  }

  of(fact: Fact, value: string): ReadonlySet<LiveFlow> {
    return this.#flows.get(fact)!.get(value) ?? NO_FLOWS
  }

  values(fact: Fact): string[] {
    return [...this.#flows.get(fact)!.keys()]
  }

  forget(flow: LiveFlow): void {
    this.#gone.add(flow)
    for (const fact of FACTS) this.#remove(fact, flow.facts[fact], flow)
  }

  #add(fact: Fact, value: string, flow: LiveFlow): void {
    const flows = this.#flows.get(fact)!
    const same = flows.get(value)
    if (same) same.add(flow)
    else flows.set(value, new Set([flow]))
  }

  #remove(fact: Fact, value: string | undefined, flow: LiveFlow): void {
    if (value === undefined) return
    const flows = this.#flows.get(fact)!
    const same = flows.get(value)
    same?.delete(flow)
    if (same?.size === 0) flows.delete(value)
  }
}

const NO_FLOWS: ReadonlySet<LiveFlow> = new Set()

/** The index of every flow that is being decided or relayed. */
export class LiveFlows {
  readonly #flows = new Map<string, LiveFlow>()
  readonly #index = new FactIndex()
  readonly #relayed = new Set<LiveFlow>()
  readonly #clock: () => number
  readonly #observeSetup: (ms: number) => void
  #whenEmpty: (() => void)[] = []

  /** @param observeSetup told for each flow how long it took from its handshake until it is relayed */
  constructor(clock: () => number, observeSetup: (ms: number) => void = () => {}) {
    this.#clock = clock
    this.#observeSetup = observeSetup
  }

  get size(): number {
    return this.#flows.size
  }

  enter(): LiveFlow {
    const flow = new LiveFlow(this.#clock(), this.#index, (left) => this.#leave(left))
    this.#flows.set(flow.id, flow)
    return flow
  }

  find(id: string): LiveFlow | undefined {
    return this.#flows.get(id)
  }

  /** Flows for which every given fact holds; all of them when none is given. */
  where(facts: FlowFacts): LiveFlow[] {
    const wanted = Object.entries(facts).filter(([, value]) => value !== undefined) as [Fact, string][]
    if (wanted.length === 0) return [...this.#flows.values()]
    const sets = wanted.map(([fact, value]) => this.#index.of(fact, value)).sort((a, b) => a.size - b.size)
    const [smallest, ...others] = sets
    return [...smallest!].filter((flow) => others.every((set) => set.has(flow)))
  }

  /** Every value that this fact has in some flow. */
  values(fact: Fact): string[] {
    return this.#index.values(fact)
  }

  /** Ends every flow for which the given facts hold.
   *  @returns how many this ended */
  cutWhere(facts: FlowFacts, reason: PosternError): number {
    return this.where(facts).filter((flow) => flow.cut(reason)).length
  }

  /** From the first byte to the last. */
  relaying(flow: LiveFlow): Disposable {
    this.#observeSetup(Math.max(0, this.#clock() - flow.startedAt))
    this.#relayed.add(flow)
    return { [Symbol.dispose]: () => void this.#relayed.delete(flow) }
  }

  /** Flows that are relayed and would not be found by each of their facts: none, or something is broken. */
  countNotCovered(): number {
    return [...this.#relayed].filter((flow) => !this.#isCovered(flow)).length
  }

  /** Resolves once no flow is left. */
  drained(): Promise<void> {
    if (this.#flows.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#whenEmpty.push(resolve))
  }

  #isCovered(flow: LiveFlow): boolean {
    return (
      flow.isAdmitted &&
      this.#flows.has(flow.id) &&
      FACTS.every((fact) => {
        const value = flow.facts[fact]
        return value !== undefined && this.#index.of(fact, value).has(flow)
      })
    )
  }

  #leave(flow: LiveFlow): void {
    this.#index.forget(flow)
    this.#flows.delete(flow.id)
    if (this.#flows.size > 0) return
    for (const resolve of this.#whenEmpty) resolve()
    this.#whenEmpty = []
  }
}
