import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import { upsertIdentity } from '../store/identities.ts'
import { openStore, type Store } from '../store/open.ts'
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
