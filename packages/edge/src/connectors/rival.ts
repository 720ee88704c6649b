/** Tells a connector that comes back from a second process with a copy of its key. */
import { PosternError } from '@postern/shared/errors'
import type { Attachment, ConnectorRegistry } from './registry.ts'

/** Makes the connector's place free for a newcomer, or finds that two processes have its key.
 *  A dead attachment gives way; one that answers although another process is here proves the copy. A mistake in
 *  that direction is mended by the loser, which renews and comes back (docs/decisions/0003).
 *  @returns the attachment that lives beside the newcomer; undefined when the place is free, or held by an earlier
 *  connection of the newcomer's own process */
export async function findLiveRival(
  newcomer: Attachment,
  registry: ConnectorRegistry,
  answerTimeoutMs: number,
): Promise<Attachment | undefined> {
  for (;;) {
    const holder = registry.ofConnector(newcomer.connectorId)
    if (!holder || isSameProcess(holder, newcomer)) return undefined
    if (await holder.answers(answerTimeoutMs)) return holder
    holder.replace() // others may have come meanwhile: look again
  }
}

/** A process never attaches with a certificate older than the one it has attached with, nor begins or ceases to say
 *  which process it is. */
function isSameProcess(holder: Attachment, newcomer: Attachment): boolean {
  return holder.instanceId === newcomer.instanceId && holder.issuedAt <= newcomer.issuedAt
}

export function superseded(connectorId: string | undefined): PosternError {
  return new PosternError('CONNECTOR_SUPERSEDED', 'two processes use the key of this connector', {
    details: { connectorId },
  })
}
