import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, beforeEach, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { MAX_CONTROL_MESSAGE_BYTES } from '@postern/shared/protocol/connector-control'
import { ALPN_DATA } from '@postern/shared/protocol/frames'
import {
  ATTACH,
  type AttachedPeer,
  type Credential,
  DOMAIN,
  type EdgeStage,
  Peer,
  type Person,
  startEdgeStage,
} from '../../test/edge-stage.ts'
import { revokeConnectorLineage } from '../store/certificates.ts'
import type { ServiceRecord } from '../store/services.ts'
import type { ControlTimings } from './control.ts'

let stage: EdgeStage
let owner: Person
let service: ServiceRecord
let credential: Credential & { connectorId: string }

const TIMINGS = { attachTimeoutMs: 10_000, pingMs: 10_000, silenceMs: 30_000 }

async function start(
  controlTimings: Partial<ControlTimings> = TIMINGS,
  helloTimeoutMs = 10_000,
): Promise<void> {
  stage = await startEdgeStage({ overrides: { controlTimings, helloTimeoutMs } })
  owner = await stage.person('op@mycorp.com')
}

async function newConnector(): Promise<void> {
  service = await stage.service(owner)
  credential = await stage.connectorCertificate(owner, service)
  stage.gates.events.splice(0)
}

/** Whether the service has a connector now. */
async function connectorsNow(): Promise<number> {
  const { json } = await stage.api('GET', `/v1/services/${service.label}`, { as: owner })
  return json.service.connectors
}

describe('a control connection', () => {
  before(() => start())
  beforeEach(newConnector)
  after(() => stage[Symbol.asyncDispose]())

  it('attaches, with everything a connector must know', async () => {
    const { attached, attachmentId, control } = await stage.attach(credential)
    assert.deepEqual(attached, {
      type: 'attached',
      version: 1,
      attachmentId,
      service: {
        id: service.id,
        label: service.label,
        name: service.name,
        host: `${service.label}.${DOMAIN}`,
        allow: service.allow,
      },
      warm: 1,
    })
    assert.equal(await connectorsNow(), 1)
    const recorded = await stage.gates.recorded('connector.attached')
    assert.deepEqual([recorded.software, recorded.connectorId], ['postern test', credential.connectorId])
    control.ws.close()
    const lost = await stage.gates.recorded('connector.lost')
    assert.equal(lost.code, undefined)
    assert.equal(await connectorsNow(), 0)
  })

  const malformed: [string, unknown][] = [
    ['not JSON', 'attach'],
    ['another type', { ...ATTACH, type: 'hello' }],
    ['no version', { ...ATTACH, version: undefined }],
    ['features that are no list', { ...ATTACH, features: 'all' }],
    ['33 features', { ...ATTACH, features: Array(33).fill('x') }],
    ['software of 65 characters', { ...ATTACH, software: 'x'.repeat(65) }],
  ]
  for (const [what, message] of malformed) {
    it(`refuses an attach with ${what}`, async () => {
      const control = await stage.openControl(credential)
      control.send(message)
      assert.equal((await control.next('refused')).code, 'PROTOCOL_INVALID')
      assert.equal(await control.close(), 4403)
      assert.equal((await stage.gates.recorded('connector.refused')).code, 'PROTOCOL_INVALID')
      assert.equal(await connectorsNow(), 0)
    })
  }

  it('refuses an attach in bytes', async () => {
    const control = await stage.openControl(credential)
    control.ws.send(Buffer.from(JSON.stringify(ATTACH)))
    assert.equal((await control.next('refused')).code, 'PROTOCOL_INVALID')
  })

  it('refuses who requires a feature it does not have, and names it', async () => {
    const control = await stage.openControl(credential)
    control.send({ ...ATTACH, requires: ['time-travel'] })
    const refused = await control.next('refused')
    assert.equal(refused.code, 'PROTOCOL_INVALID')
    assert.match(String(refused.message), /"time-travel"/)
  })

  it('takes newer versions, features and members it does not know', async () => {
    const control = await stage.openControl(credential)
    control.send({ ...ATTACH, version: 2, features: ['new'], more: true })
    assert.equal((await control.next('attached')).version, 1)
  })

  it('ignores messages that it does not know', async () => {
    const { control } = await stage.attach(credential)
    for (const message of ['{"type":"from-the-future"}', 'no JSON at all', '[]']) control.send(message)
    control.ws.send(Buffer.from([1, 2, 3]))
    control.ws.ping()
    await once(control.ws, 'pong')
    assert.equal(await connectorsNow(), 1)
  })

  it('ends a connection that sends too much in one message', async () => {
    const { control } = await stage.attach(credential)
    control.send('x'.repeat(MAX_CONTROL_MESSAGE_BYTES + 1))
    assert.equal(await control.close(), 1009)
    await stage.gates.recorded('connector.lost')
  })

  it('ends a connection that pings for ever and never reads', async () => {
    const { control } = await stage.attach(credential)
    const socket = (control.ws as unknown as { _socket: { pause(): void; destroyed: boolean } })._socket
    socket.pause()
    const lost = stage.gates.recorded('connector.lost')
    let isLost = false
    void lost.then(() => {
      isLost = true
    })
    const payload = Buffer.alloc(125)
    while (!isLost && control.ws.readyState === control.ws.OPEN) {
      for (let i = 0; i < 2_000; i++) control.ws.ping(payload)
      await new Promise(setImmediate)
    }
    await lost
  })

  it('replaces itself when the same process attaches again', async () => {
    const first = await stage.attach(credential, { warm: 1 })
    const second = await stage.attach(credential, { warm: 1 })
    assert.equal(await first.control.close(), 4409)
    assert.notEqual(first.attachmentId, second.attachmentId)
    assert.equal((await first.data[0]!.cut()).code, 'SERVICE_OFFLINE')
    assert.equal(await connectorsNow(), 1)
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await second.data[0]!.control()
    client.socket.destroy()
  })

  it('makes room among the others of its certificate, and not among those of another', async () => {
    const other = await stage.attach(await stage.connectorCertificate(owner, service))
    const silent = []
    for (let count = 0; count < 8; count++) silent.push(await stage.openControl(credential))
    const newest = await stage.attach(credential)
    assert.equal(await silent[0]!.close(), 1006)
    for (const one of silent.slice(1)) assert.equal(one.ws.readyState, one.ws.OPEN)
    assert.equal(newest.control.ws.readyState, newest.control.ws.OPEN)
    assert.equal(other.control.ws.readyState, other.control.ws.OPEN)
    assert.equal(await connectorsNow(), 2)
    for (const one of silent) one.ws.terminate()
  })

  it('lets two processes of one service stay', async () => {
    await stage.attach(credential)
    await stage.attach(await stage.connectorCertificate(owner, service))
    assert.equal(await connectorsNow(), 2)
  })

  it('goes with its service, and cannot come back', async () => {
    const { control } = await stage.attach(credential)
    await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
    assert.equal((await control.next('refused')).code, 'CONNECTOR_REFUSED')
    assert.equal((await stage.gates.recorded('connector.lost')).code, 'CONNECTOR_REFUSED')
    const again = await stage.openControl(credential)
    again.send(ATTACH)
    assert.equal((await again.next('refused')).code, 'CONNECTOR_REFUSED')
  })

  it('notices what was deleted while it attached', async () => {
    const gate = stage.gates.hold('record connector.attached')
    const control = await stage.openControl(credential)
    control.send(ATTACH)
    await gate.reached
    await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
    gate.open()
    assert.equal((await control.next('refused')).code, 'CONNECTOR_REFUSED')
    assert.equal((await stage.gates.recorded('connector.lost')).code, 'CONNECTOR_REFUSED')
  })

  it('does not attach when that cannot be recorded', async () => {
    const gate = stage.gates.hold('record connector.attached')
    const control = await stage.openControl(credential)
    control.send(ATTACH)
    await gate.reached
    gate.fail(new PosternError('RECORD_FAILED', 'disk full'))
    assert.equal((await control.next('refused')).code, 'RECORD_FAILED')
    await control.close()
    assert.equal(await connectorsNow(), 0)
  })

  it('gets no flow from the moment it is refused, even if it never closes', async () => {
    const { control, data } = await stage.attach(credential, { warm: 1 })
    const socket = (control.ws as unknown as { _socket: { pause(): void } })._socket
    socket.pause() // hears nothing, so that it cannot agree to close
    await stage.api('DELETE', `/v1/services/${service.label}`, { as: owner })
    assert.equal((await data[0]!.cut()).code, 'CONNECTOR_REFUSED')
    control.ws.terminate()
  })

  const strangers: [string, () => Promise<Credential>, string][] = [
    [
      'a revoked certificate',
      async () => {
        const { connectorId } = credential
        await revokeConnectorLineage(stage.store.db, connectorId, { reason: 'revoked', now: stage.now() })
        return credential
      },
      'CONNECTOR_REFUSED',
    ],
    [
      'a superseded certificate',
      async () => {
        const { connectorId } = credential
        await revokeConnectorLineage(stage.store.db, connectorId, { reason: 'superseded', now: stage.now() })
        return credential
      },
      'CONNECTOR_SUPERSEDED',
    ],
    [
      'an owner who is no operator any more',
      async () => {
        const former = await stage.person('former@elsewhere.org')
        return stage.connectorCertificate(former, await stage.service(former))
      },
      'CONNECTOR_REFUSED',
    ],
    [
      'a service of another owner',
      async () => stage.connectorCertificate(await stage.person('other@mycorp.com'), service),
      'CONNECTOR_REFUSED',
    ],
  ]
  for (const [what, make, code] of strangers) {
    it(`refuses ${what}`, async () => {
      const control = await stage.openControl(await make())
      control.send(ATTACH)
      assert.equal((await control.next('refused')).code, code)
      await control.close()
    })
  }

  it('is not opened at another path, with another subprotocol, or without a connector certificate', async () => {
    await assert.rejects(stage.openControl(credential, { path: '/v1/other' }), /400/)
    await assert.rejects(stage.openControl(credential, { subprotocol: 'postern-connector.v9' }), /400/)
    const client = await stage.clientCertificate(owner, service)
    await assert.rejects(stage.openControl(client))
  })

  it('answers plain HTTP on that host with 404', async () => {
    const socket = await stage.dial({ serverName: `mtls.${DOMAIN}`, alpn: ['http/1.1'], credential })
    const host = `mtls.${DOMAIN}:${stage.edge.port}`
    socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 404/)
  })
})

describe('two processes with one key', () => {
  // generous: whoever lives must be able to answer on a machine that is busy
  before(() => start({ answerTimeoutMs: 30_000 }))
  beforeEach(newConnector)
  after(() => stage[Symbol.asyncDispose]())

  /** Another process attaches with the key. */
  async function comeBeside(instanceId?: string) {
    const control = await stage.openControl(credential)
    control.send({ ...ATTACH, instanceId })
    return control
  }

  async function assertLineageEnded(): Promise<void> {
    const again = await stage.openControl(credential)
    again.send({ ...ATTACH, instanceId: 'a' })
    assert.equal((await again.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal(stage.gates.of('connector.superseded').length, 1)
  }

  it('both end, with the flows through them, and the audit log has both addresses', async () => {
    const real = await stage.attach(credential, { warm: 1, instanceId: 'a' })
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await real.data[0]!.control()
    const copy = await comeBeside('b')
    assert.equal((await copy.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal((await real.control.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    assert.equal((await client.cut()).code, 'FLOW_CUT')
    const event = await stage.gates.recorded('connector.superseded')
    assert.deepEqual(
      [event.how, event.connectorId, event.serviceId, event.email, event.label],
      ['attached', credential.connectorId, service.id, 'op@mycorp.com', service.label],
    )
    assert.match(event.clientAddress, /^127\.0\.0\.1:\d+$/)
    assert.match(event.attachedFrom!, /^127\.0\.0\.1:\d+$/)
    assert.notEqual(event.clientAddress, event.attachedFrom)
    await assertLineageEnded()
    assert.equal(await connectorsNow(), 0)
  })

  it('do not end another connector of the same service', async () => {
    const other = await stage.attach(await stage.connectorCertificate(owner, service), { instanceId: 'c' })
    await stage.attach(credential, { instanceId: 'a' })
    await (await comeBeside('b')).next('refused')
    other.control.ws.ping()
    await once(other.control.ws, 'pong')
    assert.equal(await connectorsNow(), 1)
  })

  it('show also when one of them does not say which process it is', async () => {
    await stage.attach(credential, { instanceId: 'a' })
    assert.equal((await (await comeBeside()).next('refused')).code, 'CONNECTOR_SUPERSEDED')
    await assertLineageEnded()
    await newConnector()
    await stage.attach(credential)
    assert.equal((await (await comeBeside('b')).next('refused')).code, 'CONNECTOR_SUPERSEDED')
    await assertLineageEnded()
  })

  it('show also when they attach at the same time', async () => {
    const gate = stage.gates.hold('record connector.attached')
    const first = await comeBeside('a')
    await gate.reached
    await stage.attach(credential, { instanceId: 'b' })
    gate.open()
    assert.equal((await first.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    await assertLineageEnded()
    assert.equal(await connectorsNow(), 0)
  })

  it('show also when the second one leaves before the first has answered', async () => {
    const real = await stage.attach(credential, { instanceId: 'a' })
    const socket = (real.control.ws as unknown as { _socket: { pause(): void; resume(): void } })._socket
    socket.pause()
    const gate = stage.gates.hold('read certificates')
    const copy = await comeBeside('b')
    await gate.reached
    gate.open()
    copy.ws.terminate()
    socket.resume()
    assert.equal((await real.control.next('refused')).code, 'CONNECTOR_SUPERSEDED')
    await assertLineageEnded()
  })

  it('are one that comes back when the instance is the same: it takes its own place at once', async () => {
    const first = await stage.attach(credential, { instanceId: 'a' })
    first.control.ws.pong = () => undefined // would not answer
    await stage.attach(credential, { instanceId: 'a' })
    assert.equal(await first.control.close(), 4409)
    assert.equal(await connectorsNow(), 1)
    assert.equal(stage.gates.of('connector.superseded').length, 0)
  })

  it('are one that was restarted when the old connection ends: the new one is in at once', async () => {
    const first = await stage.attach(credential, { instanceId: 'a' })
    first.control.ws.pong = () => first.control.ws.terminate() // as the kernel of a dead process answers
    await stage.attach(credential, { instanceId: 'b' })
    assert.equal(await connectorsNow(), 1)
    assert.equal(stage.gates.of('connector.superseded').length, 0)
  })

  it('are one that was restarted when the old connection closes in good order', async () => {
    const first = await stage.attach(credential, { instanceId: 'a' })
    first.control.ws.close(1000)
    await stage.attach(credential, { instanceId: 'b' })
    assert.equal(await connectorsNow(), 1)
    assert.equal(stage.gates.of('connector.superseded').length, 0)
  })
})

describe('a connector whose machine is gone without a word', () => {
  before(() => start({ answerTimeoutMs: 200 }))
  beforeEach(newConnector)
  after(() => stage[Symbol.asyncDispose]())

  it('gives way to the process that comes after it', async () => {
    const gone = await stage.attach(credential, { instanceId: 'a' })
    gone.control.ws.pong = () => undefined
    const next = await stage.attach(credential, { warm: 1, instanceId: 'b' })
    assert.equal(await gone.control.close(), 4409)
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await next.data[0]!.control()
    client.socket.destroy()
    assert.equal(stage.gates.of('connector.superseded').length, 0)
  })

  it('keeps its place until the new one is known to be let in', async () => {
    const real = await stage.attach(credential, { instanceId: 'a' })
    await revokeConnectorLineage(stage.store.db, credential.connectorId, {
      reason: 'revoked',
      now: stage.now(),
    })
    const stranger = await stage.openControl(credential)
    stranger.send({ ...ATTACH, instanceId: 'b' })
    assert.equal((await stranger.next('refused')).code, 'CONNECTOR_REFUSED')
    assert.equal(real.control.ws.readyState, real.control.ws.OPEN)
  })
})

describe('a connector that runs out of time', () => {
  before(() => start({ attachTimeoutMs: 1_000, pingMs: 100, silenceMs: 2_000, returnMs: 200 }, 1_000))
  beforeEach(newConnector)
  after(() => stage[Symbol.asyncDispose]())

  it('by saying nothing at all', async () => {
    const control = await stage.openControl(credential)
    assert.equal((await control.next('refused')).code, 'PROTOCOL_INVALID')
    assert.equal(await control.close(), 4403)
  })

  it('by answering no ping: the machine may be gone', async () => {
    const { control } = await stage.attach(credential)
    control.ws.pong = () => undefined
    await stage.gates.recorded('connector.lost')
    assert.equal(await control.close(), 1006)
  })

  it('and its flows with it, although their connections say nothing of it', async () => {
    const { control, data } = await stage.attach(credential, { warm: 1 })
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    const { body } = await data[0]!.control()
    data[0]!.end.send('ok', { flowId: body.flowId as string })
    await client.control()
    control.ws.pong = () => undefined
    const error = await client.cut()
    assert.equal(error.code, 'FLOW_CUT')
    assert.match(error.message, /fallen silent/)
  })

  it('but not by having nothing to say', async () => {
    const { control } = await stage.attach(credential)
    for (let pings = 0; pings < 25; pings++) await once(control.ws, 'ping')
    assert.equal(await connectorsNow(), 1)
  })

  it('by the end of its certificate', async () => {
    const short = await stage.connectorCertificate(owner, service, { ttlMs: 5_000 })
    const { control } = await stage.attach(short)
    assert.equal((await control.next('refused')).code, 'CERTIFICATE_EXPIRED')
    assert.equal((await stage.gates.recorded('connector.lost')).code, 'CERTIFICATE_EXPIRED')
    assert.equal(await connectorsNow(), 0)
  })

  it('by saying no hello on a data connection', async () => {
    const peer = new Peer(await stage.dial({ serverName: DOMAIN, alpn: [ALPN_DATA], credential }))
    assert.equal((await peer.cut()).code, 'PROTOCOL_INVALID')
  })
})

describe('a data connection', () => {
  let connector: AttachedPeer
  before(() => start())
  beforeEach(async () => {
    await newConnector()
    connector = await stage.attach(credential)
  })
  after(() => stage[Symbol.asyncDispose]())

  const dial = async (who: Credential = credential) =>
    new Peer(await stage.dial({ serverName: DOMAIN, alpn: [ALPN_DATA], credential: who }))
  const hello = () => ({ version: 1, attachmentId: connector.attachmentId })

  /** The flow that is opened now goes through a connection that is offered later, or not. */
  async function assertNotInPool(): Promise<void> {
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await connector.control.next('want')
    client.socket.destroy()
  }

  const broken: [string, (peer: Peer) => unknown][] = [
    ['says bytes first', (peer) => peer.end.write(Buffer.from('x'))],
    ['ends first', (peer) => peer.end.end(() => {})],
    ['says ok first', (peer) => peer.end.send('ok', { flowId: 'x' })],
    ['says a hello without attachment', (peer) => peer.end.send('hello', { version: 1 })],
    ['says a hello of another version', (peer) => peer.end.send('hello', { ...hello(), version: 2 })],
    [
      'says hello and goes on talking',
      (peer) => [peer.end.send('hello', hello()), peer.end.write(Buffer.of(1))],
    ],
    ['says hello twice', (peer) => [1, 2].map(() => peer.end.send('hello', hello()))],
    ['speaks no frames', (peer) => peer.socket.write('\x05\xff\xff\xffGET / HTTP/1.1\r\n')],
  ]
  for (const [what, say] of broken) {
    it(`that ${what} is refused`, async () => {
      const peer = await dial()
      say(peer)
      assert.equal((await peer.cut()).code, 'PROTOCOL_INVALID')
      await assertNotInPool()
    })
  }

  it('for an attachment that does not exist is refused', async () => {
    const peer = await dial()
    peer.end.send('hello', { ...hello(), attachmentId: 'none' })
    assert.equal((await peer.cut()).code, 'CONNECTOR_REFUSED')
  })

  it('for the attachment of another connector is refused, also of the same owner', async () => {
    const peer = await dial(await stage.connectorCertificate(owner, service))
    peer.end.send('hello', hello())
    assert.equal((await peer.cut()).code, 'CONNECTOR_REFUSED')
    assert.equal((await stage.gates.recorded('connector.refused')).code, 'CONNECTOR_REFUSED')
    await assertNotInPool()
  })

  it('with a revoked certificate is refused', async () => {
    const { connectorId } = credential
    await revokeConnectorLineage(stage.store.db, connectorId, { reason: 'superseded', now: stage.now() })
    const peer = await dial()
    peer.end.send('hello', hello())
    assert.equal((await peer.cut()).code, 'CONNECTOR_SUPERSEDED')
  })

  it('that is given up while it says hello leaves nothing behind', async () => {
    const peer = await dial()
    peer.socket.destroy()
    await stage.log.until('connector.data_refused')
  })

  it('that dies while it waits is not used', async () => {
    const dead = await connector.openData()
    const client = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await dead.control()
    client.socket.destroy()
    const idle = await connector.openData()
    idle.socket.destroy()
    const alive = await connector.openData()
    const second = await stage.openFlow(service, await stage.clientCertificate(owner, service))
    await alive.control()
    second.socket.destroy()
  })
})
