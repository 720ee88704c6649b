import { readdirSync } from 'node:fs'
import path from 'node:path'
import { edgeNow, type KnownEdge } from '../credentials/known-edge.ts'
import { type Lock, tryLock } from '../credentials/lock.ts'
import { readStateFile, removeState, type ShapeValue, writeStateFile } from '../credentials/state-file.ts'

/** Where connectors keep their certificates: `connectors/<service id>/<slot>/`. Every process has a slot of its own
 *  and holds its lock as long as it lives, so that two processes never use one certificate: renewing it twice
 *  would look like a stolen copy. */

const SERVICE_SHAPE = { id: 'string', name: 'string', label: 'string', host: 'string' } as const
const CERTIFICATE_SHAPE = {
  keyPem: 'string',
  certificatePem: 'string',
  serial: 'string',
  connectorId: 'string',
  /** Epoch milliseconds by the edge's clock. */
  notBefore: 'number',
  notAfter: 'number',
} as const
export const PENDING_SHAPE = { keyPem: 'string', csr: 'string' } as const

export type StoredService = ShapeValue<typeof SERVICE_SHAPE>
export type ConnectorCertificate = ShapeValue<typeof CERTIFICATE_SHAPE>
export type PendingKey = ShapeValue<typeof PENDING_SHAPE>

/** An expired certificate may be renewed for this long. */
export const RENEWABLE_AFTER_EXPIRY_MS = 30 * 86_400_000

export interface Slot extends Disposable {
  folder: string
}

/** The first slot of a service that no process holds. */
export function takeSlot(edge: KnownEdge, service: StoredService): Slot {
  writeStateFile(path.join(serviceFolder(edge, service.id), 'service.json'), service)
  for (let number = 1; ; number++) {
    const slot = lockSlot(path.join(serviceFolder(edge, service.id), String(number)))
    if (slot) return slot
  }
}

/** A free slot with a certificate that can still be renewed, of a service with this name (and label, if given). */
export function takeStoredSlot(
  edge: KnownEdge,
  wanted: { name: string; label?: string | undefined },
): { slot: Slot; service: StoredService; certificate: ConnectorCertificate } | undefined {
  const now = edgeNow(edge)
  for (const id of listNames(path.join(edge.folder, 'connectors'))) {
    const service = readStateFile(path.join(serviceFolder(edge, id), 'service.json'), SERVICE_SHAPE)
    if (service?.name !== wanted.name) continue
    if (wanted.label !== undefined && service.label !== wanted.label) continue
    for (const number of listNames(serviceFolder(edge, id))) {
      const folder = path.join(serviceFolder(edge, id), number)
      const certificate = /^\d+$/.test(number) ? readSlot({ folder }) : undefined
      if (!certificate || certificate.notAfter + RENEWABLE_AFTER_EXPIRY_MS < now) continue
      const slot = lockSlot(folder)
      if (slot) return { slot, service, certificate }
    }
  }
  return undefined
}

/** The newest valid certificate of a connector of this service, for calls in its name beside the process that holds
 *  the slot. */
export function readCertificateOf(
  edge: KnownEdge,
  host: string,
): { service: StoredService; certificate: ConnectorCertificate } | undefined {
  const now = edgeNow(edge)
  const found = listNames(path.join(edge.folder, 'connectors')).flatMap((id) => {
    const service = readStateFile(path.join(serviceFolder(edge, id), 'service.json'), SERVICE_SHAPE)
    if (service?.host !== host) return []
    return listNames(serviceFolder(edge, id)).flatMap((number) => {
      const folder = path.join(serviceFolder(edge, id), number)
      const certificate = /^\d+$/.test(number) ? readSlot({ folder }) : undefined
      return certificate && certificate.notAfter > now ? [{ service, certificate }] : []
    })
  })
  return found.sort((one, other) => other.certificate.notAfter - one.certificate.notAfter)[0]
}

export function readSlot(slot: { folder: string }): ConnectorCertificate | undefined {
  return readStateFile(path.join(slot.folder, 'certificate.json'), CERTIFICATE_SHAPE)
}

export function saveSlot(slot: { folder: string }, certificate: ConnectorCertificate): void {
  writeStateFile(path.join(slot.folder, 'certificate.json'), certificate)
  removeState(pendingFile(slot))
}

export function clearSlot(slot: { folder: string }): void {
  removeState(path.join(slot.folder, 'certificate.json'))
  removeState(pendingFile(slot))
}

/** The key that a renewal under way asks a certificate for: kept before the request is sent, so that the request
 *  can be repeated with the same key when its answer was lost. */
export function readPendingKey(slot: { folder: string }): PendingKey | undefined {
  return readStateFile(pendingFile(slot), PENDING_SHAPE)
}

export function savePendingKey(slot: { folder: string }, pending: PendingKey): void {
  writeStateFile(pendingFile(slot), pending)
}

function lockSlot(folder: string): Slot | undefined {
  const lock: Lock | undefined = tryLock(path.join(folder, 'lock'))
  return lock && { folder, [Symbol.dispose]: () => lock[Symbol.dispose]() }
}

function pendingFile(slot: { folder: string }): string {
  return path.join(slot.folder, 'pending-key.json')
}

function serviceFolder(edge: KnownEdge, serviceId: string): string {
  return path.join(edge.folder, 'connectors', path.basename(serviceId))
}

function listNames(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return []
  }
}
