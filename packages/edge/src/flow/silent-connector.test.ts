import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it, mock } from 'node:test'
import type { PosternError } from '@postern/shared/errors'
import { type Attachment, ConnectorRegistry } from '../connectors/registry.ts'
import { type LiveFlow, LiveFlows } from './live-flows.ts'
import { endFlowsOfSilent } from './silent-connector.ts'

const RETURN_MS = 12_000

describe('a connector that has fallen silent', () => {
  let live: LiveFlows
  let connectors: ConnectorRegistry

  beforeEach(() => {
    mock.timers.enable({ apis: ['setTimeout'] })
    live = new LiveFlows(() => 0)
    connectors = new ConnectorRegistry()
  })
  afterEach(() => mock.timers.reset())

  const attachment = (id: string, connectorId: string, instanceId?: string) =>
    ({ id, connectorId, instanceId, serviceId: 'svc_1', pool: { size: {} } }) as Attachment

  function flowThrough({ id, connectorId, instanceId }: Attachment): LiveFlow {
    const flow = live.enter()
    Object.assign(flow.facts, { connectorId, instanceId: instanceId ?? id })
    return flow
  }

  function fallSilent(gone: Attachment): void {
    endFlowsOfSilent(gone, { live, connectors, returnMs: RETURN_MS })
  }

  const codeOf = ({ signal }: LiveFlow) => (signal.reason as PosternError | undefined)?.code

  it('loses its flows, after some time in which it could come back', () => {
    const gone = attachment('a', 'con_1', 'process 1')
    const flows = [flowThrough(gone), flowThrough(gone)]
    fallSilent(gone)
    mock.timers.tick(RETURN_MS - 1)
    assert.deepEqual(flows.map(codeOf), [undefined, undefined])
    mock.timers.tick(1)
    assert.deepEqual(flows.map(codeOf), ['FLOW_CUT', 'FLOW_CUT'])
  })

  it('loses those that began before it attached with its newest certificate too', () => {
    const old = flowThrough(attachment('a', 'con_1', 'process 1'))
    fallSilent(attachment('b', 'con_1', 'process 1'))
    mock.timers.tick(RETURN_MS)
    assert.equal(codeOf(old), 'FLOW_CUT')
  })

  it('keeps them when its process attaches again', () => {
    const gone = attachment('a', 'con_1', 'process 1')
    const flow = flowThrough(gone)
    fallSilent(gone)
    connectors.add(attachment('b', 'con_1', 'process 1'))
    mock.timers.tick(RETURN_MS)
    assert.equal(codeOf(flow), undefined)
  })

  it('keeps those that bring bytes', () => {
    const gone = attachment('a', 'con_1', 'process 1')
    const [moving, still] = [flowThrough(gone), flowThrough(gone)]
    let bytes = 1_000
    moving.bytesFromConnector = () => bytes
    still.bytesFromConnector = () => 1_000
    fallSilent(gone)
    bytes++
    mock.timers.tick(RETURN_MS)
    assert.deepEqual([moving, still].map(codeOf), [undefined, 'FLOW_CUT'])
  })

  it('leaves another connector alone, and the process that has its key since the machine was started again', () => {
    const gone = attachment('a', 'con_1', 'process 1')
    const next = attachment('b', 'con_1', 'process 2')
    const other = attachment('c', 'con_2', 'process 3')
    connectors.add(next)
    connectors.add(other)
    const flows = [gone, next, other].map(flowThrough)
    fallSilent(gone)
    mock.timers.tick(RETURN_MS)
    assert.deepEqual(flows.map(codeOf), ['FLOW_CUT', undefined, undefined])
  })

  it('that does not say which process it is loses the flows of that attachment', () => {
    const gone = attachment('a', 'con_1')
    const [lost, kept] = [flowThrough(gone), flowThrough(attachment('b', 'con_1'))]
    connectors.add(attachment('b', 'con_1'))
    fallSilent(gone)
    mock.timers.tick(RETURN_MS)
    assert.deepEqual([lost, kept].map(codeOf), ['FLOW_CUT', undefined])
  })
})
