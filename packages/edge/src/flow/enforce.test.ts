import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { EMPTY_POLICY, type Policy } from '@postern/shared/policy'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import type { PolicyContext } from '../policy/conditions.ts'
import { decide } from '../policy/decide.ts'
import type { Admission } from '../policy/evaluate.ts'
import { findIdentity, upsertIdentity } from '../store/identities.ts'
import { openStore, type Store } from '../store/open.ts'
import { findPolicy, replacePolicy } from '../store/policies.ts'
import { createService, type ServiceRecord, updateService } from '../store/services.ts'
import { type Enforcement, openEnforcement } from './enforce.ts'
import { type FlowFacts, LiveFlows } from './live-flows.ts'

const ACCOUNT = { issuer: 'https://idp.test', groups: [] }
const NOW = 1_000_000

describe('enforcement', () => {
  let store: Store
  let live: LiveFlows
  let enforcement: Enforcement
  let service: ServiceRecord
  let identityId: string
  const refused: string[] = []

  before(async () => {
    store = await openStore(':memory:')
    live = new LiveFlows(() => NOW)
    const connectors = {
      ofConnector: (id: string) => ({
        refuse: (reason: PosternError) => refused.push(`${id} ${reason.code}`),
      }),
      refuseService: (id: string, reason: PosternError) => refused.push(`${id} ${reason.code}`),
    } as unknown as ConnectorRegistry
    enforcement = openEnforcement({ db: store.db, live, connectors, clock: () => 1_000 })
    identityId = (await signIn('dev@mycorp.com')).id
    service = await createService(
      store.db,
      {
        label: 'text-1000' as ServiceRecord['label'],
        name: 'text',
        type: 'tls',
        ownerId: identityId,
        allow: { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false },
      },
      NOW,
    )
  })
  after(() => store.close())

  const signIn = (email: string) =>
    upsertIdentity(store.db, { ...ACCOUNT, subject: 's', email: email as never }, NOW)
  const flowWith = (facts: FlowFacts) => {
    const flow = live.enter()
    Object.assign(flow.facts, facts)
    flow.admit({})
    return flow
  }
  const codeOf = ({ signal }: { signal: AbortSignal }) =>
    signal.aborted ? (signal.reason as PosternError).code : undefined

  it('follows the address of a person who signs in again', async () => {
    using flow = flowWith({ identityId, serviceId: service.id })
    using other = flowWith({ identityId: 'idn_other', serviceId: service.id })
    await signIn('dev@mycorp.com')
    await enforcement.identityUpdated(identityId)
    assert.equal(codeOf(flow), undefined)
    await signIn('dev@elsewhere.org')
    await enforcement.identityUpdated(identityId)
    assert.equal(codeOf(flow), 'FLOW_REVOKED')
    assert.equal(codeOf(other), undefined)
    await signIn('dev@mycorp.com')
  })

  it('ends flows of people it cannot look up', async () => {
    using flow = flowWith({ identityId: 'idn_unknown', serviceId: service.id })
    await enforcement.serviceUpdated(service)
    assert.equal(codeOf(flow), 'FLOW_REVOKED')
    const broken = await openStore(':memory:')
    await broken.close()
    using known = flowWith({ identityId, serviceId: service.id })
    await openEnforcement({
      db: broken.db,
      live,
      connectors: {} as never,
      clock: () => 1_000,
    }).serviceUpdated(service)
    assert.equal(codeOf(known), 'FLOW_REVOKED')
  })

  it('ends flows of services it cannot look up, when their person signs in', async () => {
    const broken = await openStore(':memory:')
    await broken.close()
    using mine = flowWith({ identityId, serviceId: service.id })
    using other = flowWith({ identityId: 'idn_other', serviceId: service.id })
    await openEnforcement({
      db: broken.db,
      live,
      connectors: {} as never,
      clock: () => 1_000,
    }).identityUpdated(identityId)
    assert.deepEqual([mine, other].map(codeOf), ['FLOW_REVOKED', undefined])
  })

  it('holds a new policy against the allow-list as it is written, not as the request had read it', async () => {
    using flow = flowWith({ identityId, serviceId: service.id })
    await enforcement.policyUpdated(service)
    assert.equal(codeOf(flow), undefined)
    const nobody = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
    await updateService(store.db, service.id, { allow: nobody }, NOW)
    await enforcement.policyUpdated(service)
    assert.equal(codeOf(flow), 'FLOW_REVOKED')
    await updateService(store.db, service.id, { allow: service.allow }, NOW)
  })

  it('goes by what is written when nobody knows whether a change is', async () => {
    using admitted = flowWith({ identityId, serviceId: service.id })
    using stranger = flowWith({ identityId: 'idn_unknown', serviceId: service.id })
    using elsewhere = flowWith({ identityId, serviceId: 'svc_other' })
    await enforcement.serviceUncertain(service.id)
    const flows = [admitted, stranger, elsewhere]
    assert.deepEqual(flows.map(codeOf), [undefined, 'FLOW_REVOKED', undefined])
    await enforcement.serviceUncertain('svc_other')
    assert.deepEqual(flows.map(codeOf), [undefined, 'FLOW_REVOKED', 'FLOW_REVOKED'])
  })

  const ALWAYS: Admission = { allowed: true, rule: 'test', ruleKind: 'allow_rule', limits: {} }

  it('lets a flow that is still being decided decide again, and does not decide for it', async () => {
    using deciding = live.enter()
    Object.assign(deciding.facts, { identityId: 'idn_unknown', serviceId: service.id })
    const { changes } = deciding
    await enforcement.serviceUpdated(service)
    assert.equal(codeOf(deciding), undefined)
    assert.ok(deciding.changes > changes)
    enforcement.admit(deciding, ALWAYS, {})
    await enforcement.serviceUpdated(service)
    assert.equal(codeOf(deciding), 'FLOW_REVOKED')
  })

  it('lets no more flows in than a person may have, each counted in the turn it gets in', async () => {
    const limits = { maxFlowsPerIdentity: 2 }
    const enter = (facts: FlowFacts) => {
      const flow = live.enter()
      Object.assign(flow.facts, facts)
      const decision = enforcement.admit(flow, { ...ALWAYS, limits }, {})
      return { flow, decision: decision.allowed ? 'in' : decision.code }
    }
    const mine = { identityId, serviceId: service.id }
    const flows = [
      mine,
      mine,
      mine,
      { ...mine, serviceId: 'svc_other' },
      { ...mine, identityId: 'idn_other' },
    ]
    const entered = flows.map(enter)
    assert.deepEqual(
      entered.map(({ decision }) => decision),
      ['in', 'in', 'TOO_MANY_FLOWS', 'in', 'in'],
    )
    entered[2]!.flow[Symbol.dispose]()
    entered[0]!.flow[Symbol.dispose]()
    const next = enter(mine)
    assert.equal(next.decision, 'in')
    for (const { flow } of [...entered, next]) flow[Symbol.dispose]()
  })

  describe('when time runs out', () => {
    // Monday 1 June 2026, 17:59 in Berlin
    const EVENING = Date.parse('2026-06-01T15:59:00Z')
    const WORKDAY: Policy = {
      ...EMPTY_POLICY,
      require: {
        hours: [{ days: ['mon'], from: '08:00', to: '18:00', timeZone: 'Europe/Berlin' }],
        maxLoginAgeMs: 3_600_000,
      },
    }

    async function stageWith(policy: Policy, context: PolicyContext) {
      const clock = { now: EVENING }
      const flows = new LiveFlows(() => clock.now)
      const latencies: number[] = []
      const timed = openEnforcement({
        db: store.db,
        live: flows,
        connectors: {} as never,
        clock: () => clock.now,
        observeLatency: (ms) => latencies.push(ms),
      })
      const { revision } = await findPolicy(store.db, service.id)
      await replacePolicy(store.db, service.id, { policy, revision, by: 'idn' }, clock.now)
      const flow = flows.enter()
      Object.assign(flow.facts, { identityId, serviceId: service.id })
      const identity = (await findIdentity(store.db, identityId))!
      const decision = await decide(store.db, identity, service, context, clock.now)
      assert.ok(decision.allowed, decision.rule)
      timed.admit(flow, decision, context)
      const gone = () => new Promise((resolve) => flow.signal.addEventListener('abort', resolve))
      return { clock, flow, gone, latencies, [Symbol.dispose]: () => timed[Symbol.dispose]() }
    }
    const keepingAlive = async <T>(promise: Promise<T>): Promise<T> => {
      const timer = setInterval(() => {}, 1_000)
      return promise.finally(() => clearInterval(timer))
    }

    it('ends a flow at the end of the hours, with their code', async () => {
      using scene = await stageWith(WORKDAY, { signedInAt: EVENING })
      assert.equal(scene.flow.decideAgainAt, EVENING + 60_000)
      scene.clock.now = EVENING + 60_200
      await keepingAlive(scene.gone())
      assert.equal(codeOf(scene.flow), 'OUTSIDE_HOURS')
      assert.match((scene.flow.signal.reason as Error).message, /not open to you at this time/)
      assert.deepEqual(scene.latencies, [200])
    })

    it('ends a flow whose login has become too old', async () => {
      using scene = await stageWith(WORKDAY, { signedInAt: EVENING - 3_590_000 })
      assert.equal(scene.flow.decideAgainAt, EVENING + 10_000)
      scene.clock.now = EVENING + 10_000
      await keepingAlive(scene.gone())
      assert.equal(codeOf(scene.flow), 'LOGIN_TOO_OLD')
    })

    it('ends a flow that has lasted as long as it may', async () => {
      using scene = await stageWith({ ...EMPTY_POLICY, limits: { maxFlowLengthMs: 5_000 } }, {})
      scene.clock.now = EVENING + 5_000
      await keepingAlive(scene.gone())
      assert.equal(codeOf(scene.flow), 'FLOW_TOO_LONG')
    })

    it('keeps a flow that may go on, until the next time', async () => {
      const nights = [{ ...WORKDAY.require.hours![0]!, from: '20:00', to: '21:00' }]
      const policy = {
        ...EMPTY_POLICY,
        deny: [{ emailAddresses: ['dev@mycorp.com'], when: { hours: nights } }],
      }
      using scene = await stageWith(policy, {})
      const first = scene.flow.decideAgainAt!
      scene.clock.now = first
      while (scene.flow.decideAgainAt === first) await new Promise((resolve) => setTimeout(resolve, 10))
      assert.equal(scene.flow.decideAgainAt, first + 60_000)
      assert.equal(codeOf(scene.flow), undefined)
      scene.clock.now = Date.parse('2026-06-01T18:00:00Z')
      await keepingAlive(scene.gone())
      assert.equal(codeOf(scene.flow), 'FLOW_REVOKED')
    })

    after(async () => {
      const { revision } = await findPolicy(store.db, service.id)
      await replacePolicy(store.db, service.id, { policy: EMPTY_POLICY, revision, by: 'idn' }, NOW)
    })
  })

  it('ends exactly the flows of a session', () => {
    using mine = flowWith({ sessionId: 'ses_1' })
    using other = flowWith({ sessionId: 'ses_2' })
    using unidentified = flowWith({})
    enforcement.sessionEnded('ses_1')
    assert.deepEqual([mine, other, unidentified].map(codeOf), ['FLOW_REVOKED', undefined, undefined])
  })

  it('ends a revoked connector with the flows through it', () => {
    using mine = flowWith({ connectorId: 'con_1' })
    using other = flowWith({ connectorId: 'con_2' })
    refused.length = 0
    enforcement.connectorRevoked('con_1', new PosternError('CONNECTOR_SUPERSEDED', 'two'))
    assert.deepEqual([mine, other].map(codeOf), ['FLOW_CUT', undefined])
    assert.deepEqual(refused, ['con_1 CONNECTOR_SUPERSEDED'])
  })

  it('ends flows and connectors of a deleted service', () => {
    using flow = flowWith({ serviceId: service.id })
    refused.length = 0
    enforcement.serviceDeleted(service)
    assert.equal(codeOf(flow), 'FLOW_REVOKED')
    assert.deepEqual(refused, [`${service.id} CONNECTOR_REFUSED`])
  })
})

describe('live flows', () => {
  it('are found by each fact as soon as it is assigned, and no longer when they have left', () => {
    const live = new LiveFlows(() => NOW)
    const flow = live.enter()
    const other = live.enter()
    flow.facts.identityId = 'idn_1'
    assert.deepEqual(live.where({ identityId: 'idn_1' }), [flow])
    flow.facts.identityId = 'idn_2'
    Object.assign(other.facts, { identityId: 'idn_2', serviceId: 'svc_1' })
    assert.deepEqual(live.where({ identityId: 'idn_1' }), [])
    assert.deepEqual(live.where({ identityId: 'idn_2' }), [flow, other])
    assert.deepEqual(live.where({ identityId: 'idn_2', serviceId: 'svc_1' }), [other])
    assert.deepEqual(live.where({ identityId: 'idn_2', serviceId: 'svc_2' }), [])
    assert.deepEqual(live.values('identityId'), ['idn_2'])
    flow[Symbol.dispose]()
    flow.facts.identityId = 'idn_2' // too late: nobody would take it out again
    other[Symbol.dispose]()
    assert.deepEqual([live.values('identityId'), live.where({}), live.size], [[], [], 0])
  })

  it('of one person are found among many, and ended once', () => {
    const live = new LiveFlows(() => NOW)
    for (let n = 0; n < 5_000; n++) {
      const flow = live.enter()
      Object.assign(flow.facts, { identityId: `idn_${n}`, serviceId: 'svc_1', sessionId: `ses_${n}` })
    }
    const reason = new PosternError('FLOW_REVOKED', 'x')
    assert.equal(live.where({ identityId: 'idn_7', serviceId: 'svc_1' }).length, 1)
    assert.equal(live.cutWhere({ sessionId: 'ses_9' }, reason), 1)
    assert.equal(live.cutWhere({ sessionId: 'ses_9' }, reason), 0) // it is over already
  })

  it('that are relayed without all of their facts are counted', () => {
    const live = new LiveFlows(() => NOW)
    const flow = live.enter()
    const relaying = live.relaying(flow)
    const facts: FlowFacts = {
      identityId: 'idn',
      sessionId: 'ses',
      certificateSerial: 'ab',
      serviceId: 'svc',
      instanceId: 'ins',
    }
    Object.assign(flow.facts, facts)
    flow.admit({})
    assert.equal(live.countNotCovered(), 1)
    flow.facts.connectorId = 'con'
    assert.equal(live.countNotCovered(), 0)
    flow[Symbol.dispose]()
    assert.equal(live.countNotCovered(), 1) // passes bytes and is not in the index
    relaying[Symbol.dispose]()
    assert.equal(live.countNotCovered(), 0)
  })
  it('tells when the last one has left', async () => {
    const live = new LiveFlows(() => NOW)
    await live.drained()
    const first = live.enter()
    const second = live.enter()
    let isDrained = false
    const drained = live.drained().then(() => {
      isDrained = true
    })
    first[Symbol.dispose]()
    await Promise.resolve()
    assert.equal(isDrained, false)
    second[Symbol.dispose]()
    await drained
    assert.equal(live.size, 0)
    assert.equal(live.cutWhere({}, new PosternError('EDGE_STOPPING', 'x')), 0)
  })
})
