import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import path from 'node:path'
import { generateKey } from '@postern/shared/certs/csr'
import { PosternError } from '@postern/shared/errors'
import { callEdge } from '../credentials/fresh.ts'
import type { KnownEdge } from '../credentials/known-edge.ts'
import { takeLock } from '../credentials/lock.ts'
import { readStateFile, writeStateFile } from '../credentials/state-file.ts'
import { keep, machineName } from './certificate.ts'
import { readEnrollToken } from './enroll-token-file.ts'
import { type ConnectorCertificate, PENDING_SHAPE, type PendingKey, type Slot, takeSlot } from './slots.ts'

/** The first start of a connector on a server without a person: an enroll token in place of a session. The token's file is
 *  never changed, and not needed again. */

const LOCK_TIMEOUT_MS = 60_000

export interface Enrolled {
  slot: Slot
  certificate: ConnectorCertificate
  host: string
}

/** @param wanted the service that this connector is for: a token for another one is refused
 *  @throws ENROLL_TOKEN_INVALID · USAGE_INVALID the file · EDGE_UNREACHABLE */
export async function enrollConnector(
  edge: KnownEdge,
  tokenFile: string,
  wanted: { name: string; label?: string | undefined },
): Promise<Enrolled> {
  const token = readEnrollToken(tokenFile)
  const folder = path.join(edge.folder, 'enrolling')
  using _lock = await takeLock(path.join(folder, 'lock'), { timeoutMs: LOCK_TIMEOUT_MS })
  const pendingFile = path.join(folder, `${nameOf(token)}.json`)
  const pending = takePendingKey(pendingFile)
  const { name, label } = wanted
  const request = { token, csr: pending.csr, machine: machineName(), name, ...(label ? { label } : {}) }
  const { service, ...issued } = await callEdge(edge, (api) => api.enrollConnector(request)).catch(
    (error: unknown) => {
      // this key will not get an answer any more
      if (error instanceof PosternError && error.code === 'ENROLL_TOKEN_INVALID') forget(pendingFile)
      throw error
    },
  )
  const slot = takeSlot(edge, service)
  try {
    const certificate = keep(slot, pending.keyPem, issued)
    forget(pendingFile)
    return { slot, certificate, host: service.host }
  } catch (error) {
    slot[Symbol.dispose]()
    throw error
  }
}

/** Kept before the request is sent: when its answer is lost, only the same key is answered again. */
function takePendingKey(file: string): PendingKey {
  const kept = readStateFile(file, PENDING_SHAPE)
  if (kept) return kept
  const { keyPem, csr } = generateKey()
  writeStateFile(file, { keyPem, csr })
  return { keyPem, csr }
}

/** Tells tokens apart without giving one away. */
function nameOf(token: string): string {
  return createHash('sha256').update(token).digest('hex').slice(0, 16)
}

function forget(file: string): void {
  rmSync(file, { force: true })
}
