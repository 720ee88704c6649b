import { PosternError } from '@postern/shared/errors'
import type { Kysely } from 'kysely'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import { decide } from '../policy/decide.ts'
import type { Denial } from '../policy/evaluate.ts'
import { explainDenial } from '../policy/explain.ts'
import { withdrawSsh } from '../revocation/withdraw-ssh.ts'
import { findIdentity } from '../store/identities.ts'
import type { Database } from '../store/schema.ts'
import { findServiceById, type ServiceRecord } from '../store/services.ts'
import type { FlowFacts, LiveFlow, LiveFlows } from './live-flows.ts'

export interface Enforcement {
  /** An allow-list changed: ends the live flows that it no longer admits. */
  serviceUpdated(service: ServiceRecord): Promise<void>
  /** A change failed in a way that leaves open whether it is written (a connection lost at the commit): ends what
   *  the service as it is written now does not admit, and all its flows when that cannot be read. */
  serviceUncertain(serviceId: string): Promise<void>
  /** A policy document changed: ends the live flows that it no longer admits; of all services without one. */
  policyUpdated(service: ServiceRecord | undefined): Promise<void>
  /** Ends the flows and connectors of a service that is gone. */
  serviceDeleted(service: ServiceRecord): void
  /** Somebody signed in, perhaps with another address than before: ends the flows it does not admit. */
  identityUpdated(identityId: string): Promise<void>
  /** Ends the flows of a login that is gone. */
  sessionEnded(sessionId: string): void
  /** Ends a connector whose certificates were revoked, with the flows through it: who holds its key is not known. */
  connectorRevoked(connectorId: string, reason: PosternError): void
}

/** Carries changes to the flows that live now, and to ssh certificates, which outlive the decision behind them. Call it after the change is committed, also when a later step of
 *  the same request fails. Each fact of a flow is in the index before anything that depends on it is read, so a
 *  flow either reads the new state or is found here; once these return, none of those it touches moves a byte. */
export function openEnforcement(parts: {
  db: Kysely<Database>
  live: LiveFlows
  connectors: ConnectorRegistry
  clock: () => number
}): Enforcement {
  const { db, live, connectors, clock } = parts

  /** Decides again for each live flow of a person to a service, as for a new one. What cannot be read admits nobody. */
  async function endUnlessAdmitted(identityId: string, service: ServiceRecord): Promise<void> {
    const identity = await findIdentity(db, identityId).catch(() => undefined)
    for (const flow of live.where({ serviceId: service.id, identityId })) {
      const decision =
        identity && (await decide(db, identity, service, flow.context, clock()).catch(() => undefined))
      if (!decision?.allowed) flow.cut(revoked(service, decision))
    }
  }

  /** A store that fails cannot be told either: then certificates for ssh last until they expire, minutes. */
  async function withdraw(changed: { serviceId?: string; identityId?: string }): Promise<void> {
    await withdrawSsh(db, changed, clock()).catch(() => {})
  }

  async function serviceUpdated(service: ServiceRecord): Promise<void> {
    for (const identityId of valuesOf('identityId', live.where({ serviceId: service.id }))) {
      await endUnlessAdmitted(identityId, service)
    }
    await withdraw({ serviceId: service.id })
  }

  /** The service as it is written; without one, the flows that `facts` name are over. */
  async function readOrEnd(serviceId: string, facts: FlowFacts): Promise<ServiceRecord | undefined> {
    const service = await findServiceById(db, serviceId).catch(() => undefined)
    if (!service) {
      live.cutWhere(
        { ...facts, serviceId },
        new PosternError('FLOW_REVOKED', 'whether the service is still available to you cannot be told'),
      )
    }
    return service
  }

  return {
    serviceUpdated,
    async serviceUncertain(serviceId) {
      const service = await readOrEnd(serviceId, {})
      if (service) await serviceUpdated(service)
    },
    async policyUpdated(changed) {
      // read again: the record at hand may be older than an allow-list edit whose enforcement still saw the old policy
      for (const serviceId of changed ? [changed.id] : valuesOf('serviceId', live.where({}))) {
        const service = await readOrEnd(serviceId, {})
        if (service) await serviceUpdated(service)
      }
      await withdraw({})
    },
    async identityUpdated(identityId) {
      for (const serviceId of valuesOf('serviceId', live.where({ identityId }))) {
        const service = await readOrEnd(serviceId, { identityId })
        if (service) await endUnlessAdmitted(identityId, service)
      }
      await withdraw({ identityId })
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

/** A condition that does not hold any more has its own code; everything else is one. */
function revoked(service: ServiceRecord, denial: Denial | undefined): PosternError {
  if (!denial || denial.code === 'ACCESS_DENIED') {
    return new PosternError('FLOW_REVOKED', `${service.label} is no longer available to you`)
  }
  return new PosternError(denial.code, explainDenial(denial, service.label))
}

function valuesOf(fact: keyof FlowFacts, flows: readonly LiveFlow[]): Set<string> {
  return new Set(flows.map((flow) => flow.facts[fact]).filter((value) => value !== undefined))
}
