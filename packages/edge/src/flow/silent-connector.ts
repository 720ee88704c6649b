import { PosternError } from '@postern/shared/errors'
import type { Attachment, ConnectorRegistry } from '../connectors/registry.ts'
import type { LiveFlows } from './live-flows.ts'

/** Ends the flows of a connector that has fallen silent. Its machine is gone as far as anybody can tell, and TCP by
 *  itself gives up only after a quarter of an hour where bytes are unacknowledged. But a control connection can be
 *  lost alone, in a firewall that forgot it: so there is some time left to show that the process lives, by attaching
 *  again or by any byte on the flow itself.
 *  @param returnMs for that; the process notices the loss at about the same time as the edge, and attaches again */
export function endFlowsOfSilent(
  { connectorId, instanceId, id }: Attachment,
  { live, connectors, returnMs }: { live: LiveFlows; connectors: ConnectorRegistry; returnMs: number },
): void {
  const flows = live.where({ connectorId, instanceId: instanceId ?? id })
  const heardBefore = new Map(flows.map((flow) => [flow, flow.bytesFromConnector()]))
  const isBack = () =>
    instanceId !== undefined && connectors.ofConnector(connectorId)?.instanceId === instanceId
  setTimeout(() => {
    if (isBack()) return
    const reason = new PosternError('FLOW_CUT', 'the connector has fallen silent in the middle of the flow')
    for (const [flow, bytes] of heardBefore) {
      if (flow.bytesFromConnector() === bytes) flow.cut(reason)
    }
  }, returnMs).unref()
}
