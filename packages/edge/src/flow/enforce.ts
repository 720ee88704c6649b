import { PosternError } from '@postern/shared/errors'
import type { Identity } from '@postern/shared/identity'
import type { Kysely } from 'kysely'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import { earlier, type PolicyContext } from '../policy/conditions.ts'
import { type Admission, type Decision, type Denial, evaluate } from '../policy/evaluate.ts'
import { explainDenial } from '../policy/explain.ts'
import { SshWithdrawals } from '../revocation/withdraw-ssh.ts'
import { listUnrevokedSerials } from '../store/certificates.ts'
import { listIdentities } from '../store/identities.ts'
import { findLock } from '../store/locks.ts'
import { findPolicies } from '../store/policies.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById, type ServiceRecord } from '../store/services.ts'
import { listUnendedSessions } from '../store/sessions.ts'
import { Deadlines } from './deadlines.ts'
import type { FlowFacts, LiveFlow, LiveFlows } from './live-flows.ts'
import {
  CERTIFICATE_REVOKED,
  CONNECTOR_ENDED,
  LOCKED,
  SERVICE_GONE,
  SESSION_ENDED,
  UNKNOWN,
} from './reasons.ts'

export interface Enforcement extends Disposable {
  /** Lets a flow in that the policy admits, unless the person has as many as they may: counted and taken in one
   *  turn. From here on it is decided again whenever something changes or runs out. */
  admit(flow: LiveFlow, admission: Admission, context: PolicyContext): Decision
  /** An allow-list changed: ends the live flows that it no longer admits. */
  serviceUpdated(service: ServiceRecord): Promise<void>
  /** A change failed in a way that leaves open whether it is written (a connection lost at the commit): ends what
   *  the service as it is written now does not admit, and all its flows when that cannot be read. */
  serviceUncertain(serviceId: string): Promise<void>
  /** A policy document changed: ends the live flows that it no longer admits; of all services without one. */
  policyUpdated(service: Pick<ServiceRecord, 'id'> | undefined): Promise<void>
  /** Ends the flows and connectors of a service that is gone. */
  serviceDeleted(service: { id: string; label: string }): void
  /** Somebody signed in, perhaps with another address than before: ends the flows it does not admit. */
  identityUpdated(identityId: string): Promise<void>
  /** Ends the flows of a login that is gone. */
  sessionEnded(sessionId: string): void
  /** Ends a connector whose certificates were revoked, with the flows through it: who holds its key is not known. */
  connectorRevoked(connectorId: string, reason: PosternError): void
  /** Ends flows because somebody said so. @returns how many this ended */
  revoked(facts: FlowFacts, reason: PosternError): number
  end(flows: readonly LiveFlow[], reason: PosternError): number
  /** Nobody knows what has changed: ends every flow of which the store does not say that it may go on.
   *  @throws what the store throws; nothing is ended for that */
  everythingUncertain(): Promise<void>
  /** Tries again to revoke the ssh certificates that the store did not let a change revoke.
   *  @throws what the store throws */
  settleSsh(): Promise<void>
}

export interface EnforcementParts {
  db: Kysely<Database>
  live: LiveFlows
  connectors: ConnectorRegistry
  /** Epoch milliseconds. */
  clock: () => number
  /** Told for each flow that is ended: how long after the change was committed, or its time had run out. */
  observeLatency?: (ms: number) => void
  /** Told when the store did not take what a change does to ssh certificates. */
  onWithdrawFailed?: (error: unknown) => void
}

/** Carries changes to the flows that live now, and to ssh certificates, which outlive the decision behind them. Call
 *  it after the change is committed, also when a later step of the same request fails. Each fact of a flow is in the
 *  index before anything that depends on it is read. So a flow that is still being decided either reads the new state
 *  or is found here, and then decides again before its first byte; one that was admitted is decided again here. Once
 *  these return, none of those that a change ends moves a byte. */
export function openEnforcement(parts: EnforcementParts): Enforcement {
  const { db, live, connectors, clock, observeLatency = () => {}, onWithdrawFailed = () => {} } = parts
  const withdrawals = new SshWithdrawals({ db, clock, onFailed: onWithdrawFailed })
  const deadlines = new Deadlines<LiveFlow>(clock, (due) => {
    decideDue(due).catch(() => cutAll(due, UNKNOWN))
  })

  /** Counts those that were not over before. */
  function cutAll(flows: readonly LiveFlow[], reason: PosternError, since = clock()): number {
    const ended = flows.filter((flow) => flow.cut(reason))
    for (const _ of ended) observeLatency(Math.max(0, clock() - since))
    return ended.length
  }
  const cutWhere = (facts: FlowFacts, reason: PosternError) => cutAll(live.where(facts), reason)

  function watch(flow: LiveFlow, admission: Admission): void {
    const { maxFlowLengthMs } = admission.limits
    const end = maxFlowLengthMs === undefined ? undefined : flow.startedAt + maxFlowLengthMs
    const at = earlier(admission.until, end)
    flow.decideAgainAt = at
    if (at === undefined) deadlines.delete(flow)
    else deadlines.set(flow, at)
  }

  function admit(flow: LiveFlow, admission: Admission, context: PolicyContext): Decision {
    const { maxFlowsPerIdentity } = admission.limits
    const { identityId, serviceId } = flow.facts
    if (maxFlowsPerIdentity !== undefined) {
      const others = live.where({ identityId, serviceId }).filter((other) => isCounted(other, flow))
      if (others.length >= maxFlowsPerIdentity) return tooMany(maxFlowsPerIdentity)
    }
    flow.admit(context)
    watch(flow, admission)
    flow.onLeave = () => deadlines.delete(flow)
    return admission
  }

  /** Decides again for flows to one service, as for new ones. What cannot be read admits nobody.
   *  @param since when the change was committed, or the time of the flows had run out */
  async function decideAgain(
    service: ServiceRecord,
    flows: readonly LiveFlow[],
    since: number,
  ): Promise<void> {
    const grounds = await readGrounds(service, flows).catch(() => undefined)
    judgeAll(service, flows, grounds, since)
  }

  /** What decides about flows to a service. */
  async function readGrounds(service: ServiceRecord, flows: readonly LiveFlow[]): Promise<Grounds> {
    const [people, policies] = await Promise.all([
      listIdentities(db, valuesOf('identityId', flows)),
      findPolicies(db, service.id),
    ])
    return { people: new Map(people.map((identity) => [identity.id, identity])), policies }
  }

  function judgeAll(
    service: ServiceRecord,
    flows: readonly LiveFlow[],
    grounds: Grounds | undefined,
    since: number,
  ): void {
    for (const flow of flows) {
      // what it needs is not known yet: it reads all of it once more itself
      if (!flow.isAdmitted) flow.noteChange()
      else judge(flow, decideFor(flow, service, grounds), service)
    }

    function judge(flow: LiveFlow, decision: Decision | undefined, { label }: ServiceRecord): void {
      if (!decision?.allowed) return void cutAll([flow], noLonger(label, decision), since)
      const { maxFlowLengthMs } = decision.limits
      if (maxFlowLengthMs !== undefined && clock() >= flow.startedAt + maxFlowLengthMs) {
        cutAll([flow], new PosternError('FLOW_TOO_LONG', explainDenial(TOO_LONG, label)), since)
      } else watch(flow, decision)
    }
  }

  function decideFor(
    flow: LiveFlow,
    { allow }: ServiceRecord,
    grounds: Grounds | undefined,
  ): Decision | undefined {
    const subject = flow.program ?? grounds?.people.get(flow.facts.identityId ?? '')
    if (!subject || !grounds) return undefined
    const { policies } = grounds
    return evaluate(policies.defaults, subject, { allow, policy: policies.service }, flow.context, clock())
  }

  /** Hours that have ended, logins that are too old, flows that have lasted long enough. */
  async function decideDue(due: readonly LiveFlow[]): Promise<void> {
    const byService = Map.groupBy(due, ({ facts }) => facts.serviceId ?? '')
    for (const [serviceId, flows] of byService) {
      const since = Math.min(...flows.map((flow) => flow.decideAgainAt ?? clock()))
      const service = await findServiceById(db, serviceId).catch(() => undefined)
      if (service) await decideAgain(service, flows, since)
      else cutAll(flows, UNKNOWN, since)
    }
  }

  /** The service as it is written; without one, the flows that `facts` name are over. */
  async function readOrEnd(serviceId: string, facts: FlowFacts): Promise<ServiceRecord | undefined> {
    const service = await findServiceById(db, serviceId).catch(() => undefined)
    if (!service) cutWhere({ ...facts, serviceId }, UNKNOWN)
    return service
  }

  async function serviceUpdated(service: ServiceRecord): Promise<void> {
    const since = clock()
    await decideAgain(service, live.where({ serviceId: service.id }), since)
    await withdrawals.withdraw({ serviceId: service.id })
  }

  async function everythingUncertain(): Promise<void> {
    const since = clock()
    const flows = live.where({}).filter((flow) => {
      if (!flow.isAdmitted) flow.noteChange()
      return flow.isAdmitted && !flow.signal.aborted
    })
    const over = await findOver(db, flows, since)
    const byService = Map.groupBy(
      flows.filter((flow) => !over.has(flow)),
      ({ facts }) => facts.serviceId ?? '',
    )
    const read: (() => void)[] = []
    for (const [serviceId, some] of byService) {
      const service = await findServiceById(db, serviceId)
      const grounds = service && (await readGrounds(service, some))
      read.push(() => (service ? judgeAll(service, some, grounds, since) : cutAll(some, SERVICE_GONE, since)))
    }
    // once all of it is read: a store that goes away in the middle ends nothing
    for (const [flow, reason] of over) cutAll([flow], reason, since)
    for (const judge of read) judge()
  }

  return {
    admit,
    serviceUpdated,
    async serviceUncertain(serviceId) {
      const service = await readOrEnd(serviceId, {})
      if (service) await serviceUpdated(service)
      else await withdrawals.withdraw({ serviceId })
    },
    async policyUpdated(changed) {
      const since = clock()
      // read again: the record at hand may be older than an allow-list edit whose enforcement still saw the old policy
      for (const serviceId of changed ? [changed.id] : live.values('serviceId')) {
        const service = await readOrEnd(serviceId, {})
        if (service) await decideAgain(service, live.where({ serviceId }), since)
      }
      await withdrawals.withdraw(changed ? { serviceId: changed.id } : {})
    },
    async identityUpdated(identityId) {
      const since = clock()
      const touched = live.where({ identityId })
      for (const serviceId of new Set(touched.map(({ facts }) => facts.serviceId))) {
        if (serviceId === undefined) continue
        const service = await readOrEnd(serviceId, { identityId })
        if (service) await decideAgain(service, live.where({ serviceId, identityId }), since)
      }
      await withdrawals.withdraw({ identityId })
    },
    serviceDeleted(service) {
      cutWhere({ serviceId: service.id }, new PosternError('FLOW_REVOKED', `${service.label} was deleted`))
      connectors.refuseService(
        service.id,
        new PosternError('CONNECTOR_REFUSED', `the service ${service.label} was deleted`, {
          hint: 'start the connector again to create the service anew',
        }),
      )
    },
    sessionEnded(sessionId) {
      cutWhere({ sessionId }, SESSION_ENDED)
    },
    connectorRevoked(connectorId, reason) {
      connectors.ofConnector(connectorId)?.refuse(reason)
      cutWhere({ connectorId }, CONNECTOR_ENDED)
    },
    revoked: cutWhere,
    end: cutAll,
    everythingUncertain,
    settleSsh: () => withdrawals.settle(),
    [Symbol.dispose]: () => deadlines[Symbol.dispose](),
  }
}

const TOO_LONG = { code: 'FLOW_TOO_LONG' } as const

/** What is written about those who ask, and about the service. */
interface Grounds {
  people: ReadonlyMap<string, Identity>
  policies: Awaited<ReturnType<typeof findPolicies>>
}

/** Flows whose certificate, login or person was taken back, each with what its person hears. */
async function findOver(
  db: Kysely<Database>,
  flows: readonly LiveFlow[],
  now: number,
): Promise<Map<LiveFlow, PosternError>> {
  const [serials, sessions, people] = await Promise.all([
    listUnrevokedSerials(db, valuesOf('certificateSerial', flows)),
    listUnendedSessions(db, valuesOf('sessionId', flows)),
    listIdentities(db, valuesOf('identityId', flows)),
  ])
  const locked = new Set<string>()
  for (const person of people) if (await findLock(db, person, now)) locked.add(person.id)
  const over = new Map<LiveFlow, PosternError>()
  for (const flow of flows) {
    const { certificateSerial = '', sessionId = '', identityId = '' } = flow.facts
    if (locked.has(identityId)) over.set(flow, LOCKED)
    else if (!isForeign(flow) && !serials.has(certificateSerial)) over.set(flow, CERTIFICATE_REVOKED)
    else if (!flow.program && !sessions.has(sessionId)) over.set(flow, SESSION_ENDED)
  }
  return over
}

/** Its certificate is of another CA: the store knows nothing of it, and its CA is decided about with the policy. */
function isForeign({ program }: LiveFlow): boolean {
  return program !== undefined && 'ca' in program
}

function valuesOf(fact: 'certificateSerial' | 'identityId' | 'sessionId', flows: readonly LiveFlow[]) {
  return [...new Set(flows.map(({ facts }) => facts[fact]).filter((value) => value !== undefined))]
}

function isCounted(other: LiveFlow, flow: LiveFlow): boolean {
  return other !== flow && other.isAdmitted && !other.signal.aborted
}

function tooMany(limit: number): Denial {
  const rule = `at most ${limit} flows of one person at once`
  return { allowed: false, code: 'TOO_MANY_FLOWS', rule, ruleKind: 'flow_limit' }
}

/** A condition that does not hold any more has its own code; everything else is one. */
function noLonger(label: string, denial: Denial | undefined): PosternError {
  if (!denial || denial.code === 'ACCESS_DENIED') {
    return new PosternError('FLOW_REVOKED', `${label} is no longer available to you`)
  }
  return new PosternError(denial.code, explainDenial(denial, label))
}
