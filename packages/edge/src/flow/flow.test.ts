import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { AllowList } from '@postern/shared/identity'
import {
  type ApiAnswer,
  type AttachedPeer,
  type Credential,
  DOMAIN,
  type EdgeStage,
  MYCORP,
  NOBODY,
  type Peer,
  type Person,
  type StageOptions,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { newDatabase } from '../../test/postgres.ts'
import type { EdgeConfig } from '../config/config.ts'
import type { ServiceRecord } from '../store/services.ts'

interface Scene {
  stage: EdgeStage
  owner: Person
  person: Person
  service: ServiceRecord
  credential: Credential
  connector: AttachedPeer
  data: Peer
}

let stage: EdgeStage

interface SceneOptions {
  warm?: number
  allow?: AllowList
}

async function setScene(options: StageOptions & SceneOptions = {}): Promise<Scene> {
  stage = await startEdgeStage(options)
  return addScene(options)
}

/** People, a service and its connector on the stage that stands. */
async function addScene(options: SceneOptions = {}): Promise<Scene> {
  const owner = await stage.person('op@mycorp.com')
  const person = await stage.person('dev@mycorp.com')
  const service = await stage.service(owner, options.allow)
  const credential = await stage.clientCertificate(person, service)
  const connector = await stage.attach(await stage.connectorCertificate(owner, service), {
    warm: options.warm ?? 1,
  })
  return { stage, owner, person, service, credential, connector, data: connector.data[0]! }
}

/** Nothing of a flow has reached the service. */
function assertUntouched(connector: AttachedPeer): void {
  for (const peer of connector.data) {
    assert.equal(peer.hasControls, false)
    assert.equal(peer.received.length, 0)
  }
}

async function relayed({ stage, service, credential, data }: Scene): Promise<Peer> {
  const client = await stage.openFlow(service, credential)
  client.end.write(Buffer.from('hello'))
  const { body } = await data.control()
  await data.text('hello')
  data.end.send('ok', { flowId: body.flowId as string })
  await client.control()
  return client
}

describe('the life of a flow', () => {
  afterEach(() => stage[Symbol.asyncDispose]())

  it('moves bytes both ways, keeps half-close, and is recorded with its byte counts', async () => {
    const scene = await setScene()
    const { data, person, service, credential } = scene
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('hello'))
    const open = await data.control()
    assert.deepEqual(Object.keys(open.body).sort(), ['clientAddress', 'flowId', 'identity', 'serviceId'])
    assert.deepEqual(open.body.identity, { id: person.identity.id, email: 'dev@mycorp.com' })
    assert.equal(open.body.serviceId, service.id)
    assert.match(String(open.body.clientAddress), /^127\.0\.0\.1:\d+$/)
    await data.text('hello')
    data.end.send('ok', { flowId: open.body.flowId as string })
    assert.deepEqual(await client.control(), { type: 'ok', body: { flowId: open.body.flowId } })
    client.end.end(() => {})
    await data.ended()
    data.end.write(Buffer.from('a late answer'))
    await client.text('a late answer')
    data.end.end(() => {})
    await client.ended()
    const closed = await stage.gates.recorded('flow.closed')
    assert.equal(closed.code, undefined)
    assert.deepEqual([closed.bytesUp, closed.bytesDown], [5, 13])
    assert.equal(closed.connectorId, stage.gates.of('connector.attached')[0]!.connectorId)
  })

  it('moves no byte before the decision is durable', async () => {
    const { connector, service, credential, data } = await setScene()
    const gate = stage.gates.hold('record flow.decided')
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('early'))
    await gate.reached
    assertUntouched(connector)
    gate.open()
    await data.control()
    const [decided] = stage.gates.of('flow.decided')
    assert.equal(decided?.decision, 'allow')
    assert.equal(decided.rule, 'email domain mycorp.com')
    await data.text('early')
  })

  it('refuses what cannot be recorded, and the service sees nothing', async () => {
    const { connector, service, credential } = await setScene()
    const gate = stage.gates.hold('record flow.decided')
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('early'))
    await gate.reached
    gate.fail(new PosternError('RECORD_FAILED', 'disk full'))
    assert.equal((await client.cut()).code, 'RECORD_FAILED')
    assertUntouched(connector)
    await stage.log.until('flow.failed')
  })

  it('ends well when only its end cannot be recorded', async () => {
    const scene = await setScene()
    const client = await relayed(scene)
    const gate = stage.gates.hold('record flow.closed')
    client.end.end(() => {})
    scene.data.end.end(() => {})
    await gate.reached
    gate.fail(new PosternError('RECORD_FAILED', 'disk full'))
    await client.ended()
    await stage.log.until('flow.end_not_recorded')
    assert.equal(client.error, undefined)
  })

  it('tells a denied person nothing of the rule, and records it', async () => {
    const { connector, service, owner } = await setScene({
      allow: { ...NOBODY, emailDomains: ['other.org'] },
    })
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    client.end.write(Buffer.from('early'))
    const error = await client.cut()
    assert.equal(error.code, 'ACCESS_DENIED')
    assert.equal(error.message, `${service.label}.${DOMAIN} is not available to you`)
    const decided = await stage.gates.recorded('flow.decided')
    assert.deepEqual(
      [decided.decision, decided.code, decided.rule],
      ['deny', 'ACCESS_DENIED', 'no rule admits'],
    )
    assertUntouched(connector)
  })

  it('resets a denied plain TLS client: nothing that could be taken for an end', async () => {
    const { service, owner } = await setScene({ allow: { ...NOBODY, emailDomains: ['other.org'] } })
    const credential = await stage.clientCertificate(owner, service)
    const socket = await stage.dial({ serverName: `${service.label}.${DOMAIN}`, credential })
    socket.resume()
    const error = await new Promise<NodeJS.ErrnoException>((resolve) => socket.on('error', resolve))
    assert.equal(error.code, 'ECONNRESET')
  })

  it('says SERVICE_OFFLINE when no connector is there', async () => {
    const { service, credential, connector } = await setScene({ warm: 0 })
    connector.control.ws.terminate()
    await stage.gates.recorded('connector.lost')
    const client = await stage.openFlow(service, credential)
    assert.equal((await client.cut()).code, 'SERVICE_OFFLINE')
    assert.equal((await stage.gates.recorded('flow.closed')).code, 'SERVICE_OFFLINE')
  })

  it('asks the connector for a data connection when none is warm', async () => {
    const { service, credential, connector } = await setScene({ warm: 0 })
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('hello'))
    assert.ok(((await connector.control.next('want')).count as number) >= 1)
    const data = await connector.openData()
    await data.control()
    await data.text('hello')
  })

  it('says SERVICE_UNREACHABLE when the connector never answers', async () => {
    const { service, credential, data } = await setScene({ limits: { routeTimeoutMs: 300 } })
    const client = await stage.openFlow(service, credential)
    await data.control()
    const error = await client.cut()
    assert.equal(error.code, 'SERVICE_UNREACHABLE')
    assert.equal((await stage.gates.recorded('flow.closed')).code, 'SERVICE_UNREACHABLE')
    assert.equal((await data.cut()).code, 'SERVICE_UNREACHABLE')
  })

  it('says SERVICE_OFFLINE when the connector opens no connection in time', async () => {
    const { service, credential } = await setScene({ warm: 0, limits: { routeTimeoutMs: 300 } })
    const client = await stage.openFlow(service, credential)
    assert.equal((await client.cut()).code, 'SERVICE_OFFLINE')
  })

  const SAID_BY_CONNECTORS: [string, string, RegExp][] = [
    ['SERVICE_REFUSED', 'SERVICE_REFUSED', /^the service behind test-\d+\.edge\.localhost refused/],
    [
      'SERVICE_UNREACHABLE',
      'SERVICE_UNREACHABLE',
      /^the connector of test-\d+\.edge\.localhost cannot reach/,
    ],
    ['ACCESS_DENIED', 'FLOW_CUT', /^the connection to .* was lost/],
    ['NO_SUCH_CODE', 'FLOW_CUT', /^the connection to .* was lost/],
  ]
  for (const [said, told, message] of SAID_BY_CONNECTORS) {
    it(`passes on no text of a connector that says ${said}`, async () => {
      const { service, credential, data } = await setScene()
      const client = await stage.openFlow(service, credential)
      await data.control()
      const text = { message: 'SECRET 10.0.0.7', hint: 'SECRET hint' }
      data.end.abort(Object.assign(new PosternError('INTERNAL', text.message), { code: said, ...text }))
      const error = await client.cut()
      assert.equal(error.code, told)
      assert.match(error.message, message)
      assert.doesNotMatch(JSON.stringify([error.message, error.hint, stage.log.lines]), /SECRET/)
      assert.equal((await stage.gates.recorded('flow.closed')).code, told)
    })
  }

  it('cuts the client when the connector is lost in the middle', async () => {
    const scene = await setScene()
    const client = await relayed(scene)
    scene.data.socket.destroy()
    assert.equal((await client.cut()).code, 'FLOW_CUT')
    assert.equal((await stage.gates.recorded('flow.closed')).code, 'FLOW_CUT')
  })

  it('cuts the connector when the client is lost in the middle', async () => {
    const scene = await setScene()
    const client = await relayed(scene)
    client.socket.destroy()
    assert.equal((await scene.data.cut()).code, 'FLOW_CUT')
    assert.equal((await stage.gates.recorded('flow.closed')).code, 'FLOW_CUT')
  })

  it('calls it a clean end when the client leaves with the whole answer', async () => {
    const scene = await setScene()
    const client = await relayed(scene)
    scene.data.end.end(() => {})
    await client.ended()
    client.socket.destroy()
    assert.equal((await stage.gates.recorded('flow.closed')).code, undefined)
  })

  it('gives data connections back: no counter is left behind', async () => {
    const scene = await setScene({ limits: { maxDataConnectionsPerConnector: 2 } })
    for (let round = 0; round < 5; round++) {
      const client = await relayed(scene)
      scene.data.end.end(() => {})
      client.end.end(() => {})
      await client.ended()
      await scene.data.ended()
      scene.data = await scene.connector.openData()
    }
    assert.equal(stage.gates.of('flow.decided').length, 5)
  })

  it('takes another connector when one hangs', async () => {
    const scene = await setScene({ warm: 0 })
    const second = await stage.attach(await stage.connectorCertificate(scene.owner, scene.service), {
      warm: 1,
    })
    const client = await stage.openFlow(scene.service, scene.credential)
    client.end.write(Buffer.from('hello'))
    await second.data[0]!.control()
  })
})

describe('who is not let in', () => {
  let scene: Scene
  before(async () => {
    scene = await setScene()
  })
  after(() => stage[Symbol.asyncDispose]())
  beforeEach(() => stage.gates.events.splice(0))

  async function refusal(credential: Credential, service = scene.service): Promise<string> {
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('early'))
    const { code } = await client.cut()
    assertUntouched(scene.connector)
    return code
  }

  it('a certificate for another service', async () => {
    const other = await stage.service(scene.owner)
    const credential = await stage.clientCertificate(scene.person, other)
    assert.equal(await refusal(credential), 'CERTIFICATE_WRONG_SERVICE')
    const refused = await stage.gates.recorded('flow.refused')
    assert.deepEqual(
      [refused.code, refused.identityId, refused.label],
      ['CERTIFICATE_WRONG_SERVICE', scene.person.identity.id, scene.service.label],
    )
  })

  it('a certificate for a service that does not exist', async () => {
    const missing = { ...scene.service, label: 'no-such-1000' as typeof scene.service.label }
    assert.equal(await refusal(scene.credential, missing), 'CERTIFICATE_WRONG_SERVICE')
  })

  it('a serial that the store does not know', async () => {
    const credential = await stage.clientCertificate(scene.person, scene.service, { isUnknown: true })
    assert.equal(await refusal(credential), 'CERTIFICATE_REFUSED')
  })

  it('a certificate that names another address or service than the store', async () => {
    for (const lie of [{ email: 'ceo@mycorp.com' }, { serviceId: 'svc_other' }]) {
      const credential = await stage.clientCertificate(scene.person, scene.service, lie)
      assert.equal(await refusal(credential), 'CERTIFICATE_REFUSED')
    }
  })

  it('a session that is over, by logout or by age', async () => {
    const gone = await stage.person('gone@mycorp.com')
    const credential = await stage.clientCertificate(gone, scene.service)
    await stage.api('DELETE', '/v1/session', { as: gone })
    assert.equal(await refusal(credential), 'SESSION_ENDED')
  })

  it('a certificate whose time is over by the edge’s clock', async () => {
    const credential = await stage.clientCertificate(scene.person, scene.service)
    stage.clock.aheadMs = stage.config.certificates.ttlMs + 2_000
    try {
      assert.equal(await refusal(credential), 'CERTIFICATE_EXPIRED')
      const before = { aheadMs: -stage.config.certificates.backdateMs - 5_000 }
      stage.clock.aheadMs = before.aheadMs
      assert.equal(await refusal(credential), 'CERTIFICATE_REFUSED')
    } finally {
      stage.clock.aheadMs = 0
    }
  })
})

const STORES: [string, () => Promise<Partial<EdgeConfig>>][] = [
  ['SQLite', async () => ({})],
  ['PostgreSQL', async () => ({ store: await newDatabase() })],
]

for (const [storeName, storeConfig] of STORES) {
  describe(`a change while a flow is decided, on ${storeName}`, () => {
    before(async () => {
      stage = await startEdgeStage({ config: await storeConfig() })
    })
    after(() => stage[Symbol.asyncDispose]())

    const changes: [string, (scene: Scene) => Promise<ApiAnswer>][] = [
      ['the session ends', ({ person }) => stage.api('DELETE', '/v1/session', { as: person })],
      [
        'the allow-list loses the person',
        ({ owner, service }) =>
          stage.api('PATCH', `/v1/services/${service.label}`, {
            as: owner,
            body: { allow: { ...NOBODY, emailAddresses: ['op@mycorp.com'] } },
          }),
      ],
      [
        'the service is deleted',
        ({ owner, service }) => stage.api('DELETE', `/v1/services/${service.label}`, { as: owner }),
      ],
      [
        'a policy denies the person',
        (scene) => writePolicy(scene, { deny: [{ emailAddresses: ['dev@mycorp.com'] }] }),
      ],
    ]
    const writePolicy = ({ owner, service }: Scene, policy: object) =>
      stage.api('PUT', `/v1/services/${service.label}/policy`, { as: owner, body: { policy, revision: 0 } })
    /** With what a flow reads the row by: its connector reads the same tables, and may still do so. */
    const steps: [string, (scene: Scene) => string | undefined][] = [
      ['read certificates', ({ credential }) => credential.serial],
      ['read sessions', ({ person }) => person.session.id],
      ['read identities', ({ person }) => person.identity.id],
      ['read services', ({ service }) => service.label],
      ['record flow.decided', () => undefined],
      ['recorded flow.decided', () => undefined],
    ]
    const closed = ({ service }: Scene) =>
      stage.gates.recorded('flow.closed', ({ serviceId }) => serviceId === service.id)

    for (const [what, change] of changes) {
      for (const [step, about] of steps) {
        it(`${what} at: ${step}`, async () => {
          const scene = await addScene()
          const gate = stage.gates.hold(step, about(scene))
          const client = await stage.openFlow(scene.service, scene.credential)
          client.end.write(Buffer.from('early'))
          await gate.reached
          const answer = await change(scene)
          assert.ok(answer.status < 300, answer.text)
          gate.open()
          const { code } = await client.cut()
          const refusals = ['FLOW_REVOKED', 'SESSION_ENDED', 'ACCESS_DENIED', 'CERTIFICATE_WRONG_SERVICE']
          assert.ok(refusals.includes(code), code)
          assertUntouched(scene.connector)
        })
      }

      it(`${what} while the flow waits for a data connection`, async () => {
        const scene = await addScene({ warm: 0 })
        const client = await stage.openFlow(scene.service, scene.credential)
        await scene.connector.control.next('want')
        await change(scene)
        assert.equal((await client.cut()).code, 'FLOW_REVOKED')
        assert.equal((await closed(scene)).code, 'FLOW_REVOKED')
      })

      it(`${what} while the connector dials`, async () => {
        const scene = await addScene()
        const client = await stage.openFlow(scene.service, scene.credential)
        await scene.data.control()
        await change(scene)
        assert.equal((await client.cut()).code, 'FLOW_REVOKED')
        assert.equal((await scene.data.cut()).code, 'FLOW_REVOKED')
      })

      it(`${what} in the middle of the flow, told to a client that is writing`, async () => {
        const scene = await addScene()
        const client = await relayed(scene)
        client.end.write(Buffer.alloc(8 * 1024 * 1024))
        await change(scene)
        assert.equal((await client.cut()).code, 'FLOW_REVOKED')
        assert.equal((await closed(scene)).code, 'FLOW_REVOKED')
      })
    }

    for (const [step, about] of steps) {
      it(`a policy whose conditions the flow meets, written at: ${step}`, async () => {
        const scene = await addScene()
        const gate = stage.gates.hold(step, about(scene))
        const client = await stage.openFlow(scene.service, scene.credential)
        client.end.write(Buffer.from('early'))
        await gate.reached
        const require = { sourceNetworks: ['127.0.0.0/8'], sessionKinds: ['browser'], maxLoginAgeMs: 60_000 }
        const answer = await writePolicy(scene, { require })
        assert.equal(answer.status, 200, answer.text)
        gate.open()
        await scene.data.text('early')
        assert.equal(client.error, undefined)
      })
    }

    it('of two flows at once at the limit one gets in, and the next once that has ended', async () => {
      const scene = await addScene({ warm: 2 })
      await writePolicy(scene, { limits: { maxFlowsPerIdentity: 1 } })
      const gates = [stage.gates.hold('read services', scene.service.label)]
      const clients = [await stage.openFlow(scene.service, scene.credential)]
      await gates[0]!.reached
      gates.push(stage.gates.hold('read services', scene.service.label))
      clients.push(await stage.openFlow(scene.service, scene.credential))
      await gates[1]!.reached
      for (const gate of gates) gate.open()
      const refused = await Promise.race(
        clients.map(async (client) => ({ client, error: await client.cut() })),
      )
      assert.equal(refused.error.code, 'TOO_MANY_FLOWS')
      const host = `${scene.service.label}.${DOMAIN}`
      assert.equal(refused.error.message, `you have as many flows to ${host} as you may`)
      const decided = await stage.gates.recorded('flow.decided', ({ code }) => code === 'TOO_MANY_FLOWS')
      assert.equal(decided.rule, 'at most 1 flows of one person at once')
      const [admitted] = clients.filter((client) => client !== refused.client)
      assert.equal(admitted!.error, undefined)
      admitted!.socket.destroy()
      await closed(scene)
      const next = await stage.openFlow(scene.service, scene.credential)
      next.end.write(Buffer.from('next'))
      await (await scene.connector.openData()).text('next')
    })

    it('leaves others alone: another person, another session, a list that still admits', async () => {
      const scene = await addScene()
      const other = await stage.person('other@mycorp.com')
      const client = await relayed(scene)
      await stage.api('DELETE', '/v1/session', { as: other })
      await stage.api('PATCH', `/v1/services/${scene.service.label}`, {
        as: scene.owner,
        body: { allow: { ...MYCORP, emailAddresses: ['x@y.org'] } },
      })
      scene.data.end.write(Buffer.from('still here'))
      await client.text('still here')
      assert.equal(client.error, undefined)
    })
  })
}

describe('an edge that is full or about to stop', () => {
  afterEach(() => stage[Symbol.asyncDispose]())

  it('relays no more flows than it may', async () => {
    const scene = await setScene({ limits: { maxFlows: 1 } })
    const first = await relayed(scene)
    const second = await stage.openFlow(scene.service, scene.credential)
    assert.equal((await second.cut()).code, 'RATE_LIMITED')
    scene.data.end.end(() => {})
    first.end.end(() => {})
    await first.ended()
    await stage.gates.recorded('flow.closed')
    const data = await scene.connector.openData()
    await stage.openFlow(scene.service, scene.credential)
    await data.control()
  })

  it('drains: live flows finish, new ones hear why not, connectors are told', async () => {
    const scene = await setScene()
    const client = await relayed(scene)
    const closing = stage.edge.close({ deadlineMs: 10_000 })
    await scene.connector.control.next('draining')
    assert.equal((await stage.api('GET', '/readyz')).status, 503)
    const late = await stage.openFlow(scene.service, scene.credential)
    assert.equal((await late.cut()).code, 'EDGE_STOPPING')
    const connector = await stage.openControl(await stage.connectorCertificate(scene.owner, scene.service))
    connector.send({ type: 'attach', version: 1, software: 's', features: [], requires: [] })
    assert.equal((await connector.next('refused')).code, 'EDGE_STOPPING')
    scene.data.end.write(Buffer.from('to the end'))
    scene.data.end.end(() => {})
    await client.text('to the end')
    client.end.end(() => {})
    await client.ended()
    assert.deepEqual(await closing, { drained: true })
    assert.equal((await stage.gates.recorded('flow.closed')).code, undefined)
    assert.equal(stage.log.events('connector.failed').length, 0)
    await assert.rejects(stage.dial({ serverName: DOMAIN }))
  })

  it('ends what is left at the deadline, with the reason', async () => {
    const scene = await setScene()
    const client = await relayed(scene)
    assert.deepEqual(await stage.edge.close({ deadlineMs: 1 }), { drained: false })
    assert.equal((await client.cut()).code, 'EDGE_STOPPING')
    assert.equal((await stage.gates.recorded('flow.closed')).code, 'EDGE_STOPPING')
    assert.equal((await stage.gates.recorded('connector.lost')).type, 'connector.lost')
  })

  it('closes twice as once', async () => {
    await setScene()
    const both = await Promise.all([stage.edge.close(), stage.edge.close()])
    assert.deepEqual(both, [{ drained: true }, { drained: true }])
  })
})
