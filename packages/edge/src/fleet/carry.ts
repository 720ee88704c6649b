import { PosternError } from '@postern/shared/errors'
import { type ConnectorTrust, checkStanding, revokedConnector } from '../connectors/identify-connector.ts'
import type { ConnectorRegistry } from '../connectors/registry.ts'
import { superseded } from '../connectors/rival.ts'
import type { Enforcement } from '../flow/enforce.ts'
import type { LiveFlows } from '../flow/live-flows.ts'
import { CERTIFICATE_REVOKED, endedBy, LOCKED, SERVICE_REVOKED, SESSIONS_REVOKED } from '../flow/reasons.ts'
import { findConnectorCertificate } from '../store/certificates.ts'
import type { Change } from '../store/changes.ts'
import { findIdentity } from '../store/identities.ts'

export interface CarryParts {
  enforcement: Enforcement
  live: LiveFlows
  connectors: ConnectorRegistry
  trust: ConnectorTrust
}

/** Carries a change that another edge has made to the flows and connectors here: the same as there. */
export async function carryChange(change: Change, { enforcement, live, trust }: CarryParts): Promise<void> {
  switch (change.kind) {
    case 'service':
      return enforcement.policyUpdated({ id: change.serviceId }) // reads its list too
    case 'policies':
      return enforcement.policyUpdated(undefined)
    case 'identity':
      return enforcement.identityUpdated(change.identityId)
    case 'service_deleted':
      return enforcement.serviceDeleted({ id: change.serviceId, label: change.label })
    case 'service_revoked':
      return void enforcement.revoked({ serviceId: change.serviceId }, SERVICE_REVOKED)
    case 'person_revoked':
      return void enforcement.revoked({ identityId: change.identityId }, SESSIONS_REVOKED)
    case 'person_locked':
      return void enforcement.revoked({ identityId: change.identityId }, LOCKED)
    case 'session_ended':
      return enforcement.sessionEnded(change.sessionId)
    case 'certificate_revoked':
      return void enforcement.revoked({ certificateSerial: change.serial }, CERTIFICATE_REVOKED)
    case 'workload_revoked':
      return void enforcement.revoked({ identityId: change.workloadId }, CERTIFICATE_REVOKED)
    case 'connector_revoked': {
      const { connectorId, isSuperseded } = change
      const reason = isSuperseded ? superseded(connectorId) : revokedConnector(connectorId)
      return enforcement.connectorRevoked(connectorId, reason)
    }
    case 'flow_cut': {
      const flow = live.find(change.flowId)
      const by = flow && (await findIdentity(trust.db, change.by))
      if (flow) enforcement.end([flow], endedBy(by?.email ?? 'an administrator'))
    }
  }
}

/** Reads again whatever lives here: changes may have been made that nobody has told.
 *  @throws what the store throws; some of it may be ended by then */
export async function readEverythingAgain({ connectors, enforcement, trust }: CarryParts): Promise<void> {
  await enforcement.everythingUncertain()
  for (const { connectorId } of connectors.all()) {
    const certificate = await findConnectorCertificate(trust.db, connectorId)
    if (!certificate) {
      enforcement.connectorRevoked(connectorId, revokedConnector(connectorId))
      continue
    }
    await checkStanding(certificate, trust).catch((error: unknown) => {
      if (!(error instanceof PosternError)) throw error
      enforcement.connectorRevoked(connectorId, error)
    })
  }
}
