import { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import { evaluate } from '../policy/evaluate.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById, type ServiceRecord } from '../store/services.ts'
import type { FlowFacts, LiveFlow, LiveFlows } from './live-flows.ts'

export interface Enforcement {
  /** An allow-list changed: ends the live flows that it no longer admits. */
  serviceUpdated(service: ServiceRecord): Promise<void>
  /** Ends the flows and connectors of a service that is gone. */
  serviceDeleted(service: ServiceRecord): void
  /** Somebody signed in, perhaps with another address than before: ends the flows it does not admit. */
  identityUpdated(identityId: string): Promise<void>
  /** Ends the flows of a login that is gone. */
  sessionEnded(sessionId: string): void
  /** Ends a connector whose certificates were revoked, with the flows through it: who holds its key is not known. */
  connectorRevoked(connectorId: string, reason: PosternError): void
}

/** Carries changes to the flows that live now. A flow is in the index before anything about it is read, so it
 *  either reads the new state or is found here. */
export function openEnforcement(parts: {
  db: Kysely<Database>
  live: LiveFlows
  connectors: ConnectorRegistry
}): Enforcement {
  const { db, live, connectors } = parts

  /** What cannot be read admits nobody. */
  async function endUnlessAdmitted(identityId: string, service: ServiceRecord): Promise<void> {
    const identity = await findIdentity(db, identityId).catch(() => undefined)
    if (identity && evaluate(service.allow, identity).allowed) return
    live.cutWhere(
      { serviceId: service.id, identityId },
      new PosternError('FLOW_REVOKED', `${service.label} is no longer available to you`),
    )
  }

  return {
    async serviceUpdated(service) {
      for (const identityId of valuesOf('identityId', live.where({ serviceId: service.id }))) {
        await endUnlessAdmitted(identityId, service)
      }
    },
    async identityUpdated(identityId) {
      for (const serviceId of valuesOf('serviceId', live.where({ identityId }))) {
        const service = await findServiceById(db, serviceId)
        if (service) await endUnlessAdmitted(identityId, service)
      }
    },
    serviceDeleted(service) {
      live.cutWhere(
        { serviceId: service.id },
        new PosternError('FLOW_REVOKED', `${service.label} was deleted`),
      )
      connectors.refuseService(
        service.id,
        new PosternError('CONNECTOR_REFUSED', `the service ${service.label} was deleted`, {
          hint: 'start the connector again to create the service anew',
        }),
      )
    },
    sessionEnded(sessionId) {
      live.cutWhere({ sessionId }, new PosternError('FLOW_REVOKED', 'the login behind this flow has ended'))
    },
    connectorRevoked(connectorId, reason) {
      connectors.ofConnector(connectorId)?.refuse(reason)
      live.cutWhere({ connectorId }, new PosternError('FLOW_CUT', 'the connector of this flow was ended'))
    },
  }
}

function valuesOf(fact: keyof FlowFacts, flows: readonly LiveFlow[]): Set<string> {
  return new Set(flows.map((flow) => flow.facts[fact]).filter((value) => value !== undefined))
}
