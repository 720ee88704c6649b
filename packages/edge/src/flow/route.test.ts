import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { DataPool } from '../connectors/data-pool.ts'
import { type Attachment, ConnectorRegistry } from '../connectors/registry.ts'
import { LiveFlows } from './live-flows.ts'
import { doubt, route } from './route.ts'

const SERVICE = { id: 'svc_1', host: 'db.edge.localhost' }
const LONG_AGO_MS = 3_600_000

describe('the way to a service with several connectors', () => {
  let registry: ConnectorRegistry
  let asked: string[]

  beforeEach(() => {
    registry = new ConnectorRegistry()
    asked = []
  })
  afterEach(() => {
    for (const attachment of registry.all()) attachment.leave(new PosternError('SERVICE_OFFLINE', 'over'))
  })

  /** With two connections that wait, and last heard from long ago. */
  function addConnector(id: string, { answers = true } = {}): Attachment {
    const attachment: Attachment = {
      id,
      connectorId: `con_${id}`,
      serviceId: SERVICE.id,
      machine: 'test',
      clientAddress: '127.0.0.1:1',
      instanceId: undefined,
      requires: new Set(),
      issuedAt: 0,
      pool: new DataPool(() => {}, 100),
      heardAt: performance.now() - LONG_AGO_MS,
      doubtedUntil: 0,
      target: undefined,
      refusal: undefined,
      answers: async () => {
        asked.push(id)
        return answers
      },
      leave(reason) {
        registry.remove(attachment)
        attachment.pool.close(reason)
      },
      refuse: () => {},
      announceDrain: () => {},
      replace: () => {},
    }
    registry.add(attachment)
    fill(attachment)
    return attachment
  }

  function fill({ pool }: Attachment): void {
    pool.offer(new FramedEnd(duplexPair()[0]))
  }

  /** @returns the id of the connector that a new flow is led to */
  async function nextFlow(signal?: PosternError): Promise<string> {
    using flow = new LiveFlows(() => 0).enter()
    if (signal) queueMicrotask(() => flow.cut(signal))
    using target = await route(SERVICE, registry, { flow, timeoutMs: 30_000 })
    assert.equal(flow.facts.connectorId, target.attachment.connectorId)
    assert.equal(flow.facts.instanceId, target.attachment.id)
    target.end.abort(new PosternError('FLOW_CUT', 'the flow is over'))
    fill(target.attachment)
    return target.attachment.id
  }

  it('asks nobody where there is no other to take', async () => {
    addConnector('only', { answers: false })
    assert.equal(await nextFlow(), 'only')
    assert.deepEqual(asked, [])
  })

  it('asks the first, and takes it when it answers', async () => {
    addConnector('one')
    addConnector('two')
    assert.equal(await nextFlow(), 'one')
    assert.deepEqual(asked, ['one'])
  })

  it('does not ask who was heard from just now', async () => {
    addConnector('one').heardAt = performance.now() + LONG_AGO_MS
    addConnector('two')
    assert.equal(await nextFlow(), 'one')
    assert.deepEqual(asked, [])
  })

  it('takes the next when one does not answer, and that one last from then on, without asking again', async () => {
    addConnector('gone', { answers: false })
    const two = addConnector('two')
    assert.equal(await nextFlow(), 'two')
    assert.deepEqual(asked, ['gone', 'two'])
    two.heardAt = performance.now() + LONG_AGO_MS
    for (let flow = 0; flow < 3; flow++) assert.equal(await nextFlow(), 'two')
    assert.deepEqual(asked, ['gone', 'two'])
    assert.deepEqual(
      registry.ofService(SERVICE.id).map(({ id }) => id),
      ['two', 'gone'],
    )
  })

  it('takes one in doubt last also where it is less busy and the other has no connection ready', async () => {
    const gone = addConnector('gone')
    const busy = addConnector('busy')
    await busy.pool.take(AbortSignal.timeout(30_000))
    doubt(gone)
    const next = nextFlow()
    fill(busy)
    assert.equal(await next, 'busy')
  })

  it('takes one in doubt when the other has gone', async () => {
    addConnector('gone', { answers: false })
    const two = addConnector('two')
    assert.equal(await nextFlow(), 'two')
    two.leave(new PosternError('SERVICE_OFFLINE', 'the connector has gone'))
    assert.equal(await nextFlow(), 'gone')
  })

  it('forgets a doubt after a while', async () => {
    const one = addConnector('one')
    addConnector('two')
    doubt(one)
    assert.ok(one.doubtedUntil > performance.now() + 30_000)
    one.doubtedUntil = performance.now() - 1
    assert.equal(await nextFlow(), 'one')
  })

  it('asks each of many silent ones once, and tries them all the same', async () => {
    for (const id of ['one', 'two', 'three']) addConnector(id, { answers: false })
    assert.equal(await nextFlow(), 'one')
    assert.equal(await nextFlow(), 'one')
    assert.deepEqual(asked, ['one', 'two', 'three'])
  })

  it('stops asking when the flow has ended', async () => {
    for (const id of ['one', 'two', 'three']) addConnector(id, { answers: false })
    await assert.rejects(nextFlow(new PosternError('FLOW_REVOKED', 'logged out')), { code: 'FLOW_REVOKED' })
    assert.deepEqual(asked, ['one'])
  })
})
