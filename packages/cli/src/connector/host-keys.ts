import { setTimeout as wait } from 'node:timers/promises'
import { SSH_HOST_KEYS_JWS_TYPE } from '@postern/shared/api/ssh'
import { formatSshPublicKey, parseSshPublicKey } from '@postern/shared/certs/ssh-key'
import { PosternError, toPosternError } from '@postern/shared/errors'
import { callEdge } from '../credentials/fresh.ts'
import { edgeNow, type KnownEdge } from '../credentials/known-edge.ts'
import { errorFields } from '../events.ts'
import { findProgram, lastLines, runProgram } from '../sshd/run-program.ts'
import { callClaims, signConnectorCall } from './certificate.ts'
import type { Report } from './events.ts'
import { type ConnectorCertificate, readSlot, type Slot } from './slots.ts'
import type { TcpTarget } from './target.ts'

/** Tells the edge which host keys an ssh server shows, for servers that cannot show a certificate. The edge keeps
 *  and signs the first answer; clients believe that record, and another key is refused until its owner accepts. */

const EVERY_MS = 3_600_000
const RETRY_MS = 60_000
const SCAN_TIMEOUT_SECONDS = 5
/** Three kinds of keys, one connection each. */
const SCAN_LIMIT_MS = 30_000
const MAX_KEYS = 8

/** Until `signal` aborts. Whatever fails is told and tried again: flows do not depend on it. */
export async function watchHostKeys(parts: {
  edge: KnownEdge
  slot: Slot
  target: TcpTarget
  report: Report
  signal: AbortSignal
}): Promise<void> {
  const { edge, slot, target, report, signal } = parts
  let told = ''
  while (!signal.aborted) {
    let pauseMs = EVERY_MS
    try {
      const keys = await scanHostKeys(target)
      const certificate = readSlot(slot) // of now: it is renewed meanwhile
      if (certificate) await reportHostKeys(edge, certificate, keys)
      if (told !== 'ok') report({ event: 'host-keys.reported', keys: keys.length })
      told = 'ok'
    } catch (caught) {
      const error = toPosternError(caught, 'INTERNAL', String(caught))
      if (told !== error.code) report({ event: 'host-keys.failed', ...errorFields(error) })
      told = error.code
      pauseMs = RETRY_MS
    }
    await wait(pauseMs, undefined, { signal }).catch(() => undefined)
  }
}

async function reportHostKeys(
  edge: KnownEdge,
  certificate: ConnectorCertificate,
  hostKeys: readonly string[],
): Promise<void> {
  const claims = { ...callClaims(certificate, edge.origin, edgeNow(edge)), hostKeys }
  const jws = signConnectorCall(certificate, SSH_HOST_KEYS_JWS_TYPE, claims)
  await callEdge(edge, (api) => api.reportSshHostKeys(jws))
}

/** The keys that the target shows, in a fixed order.
 *  @throws SERVICE_UNREACHABLE when it shows none */
export async function scanHostKeys(target: TcpTarget): Promise<string[]> {
  const program = findProgram('ssh-keyscan')
  if (!program) {
    throw new PosternError('SERVICE_UNREACHABLE', 'this machine has no program ssh-keyscan', {
      hint: 'install OpenSSH: apt-get install openssh-client',
    })
  }
  const hosts = target.host === 'localhost' ? ['127.0.0.1', '::1'] : [target.host]
  let said = ''
  for (const host of hosts) {
    const options = ['-T', String(SCAN_TIMEOUT_SECONDS), '-p', String(target.port), '-t', 'ed25519,ecdsa,rsa']
    const { stdout, stderr } = await runProgram(program, [...options, '--', host], {
      timeoutMs: SCAN_LIMIT_MS,
    })
    const keys = readScan(stdout)
    if (keys.length > 0) return keys
    said = stderr
  }
  throw new PosternError('SERVICE_UNREACHABLE', `the service shows no ssh host key: ${lastLines(said, 1)}`)
}

/** Takes the key blobs and nothing else: names and comments of that output are the server's to choose. */
export function readScan(text: string): string[] {
  const keys = new Set<string>()
  for (const line of text.split('\n')) {
    const [, type, blob] = /^[^#\s]\S* (\S+) (\S+)$/.exec(line) ?? []
    try {
      if (blob !== undefined) keys.add(formatSshPublicKey(parseSshPublicKey(`${type} ${blob}`)))
    } catch {
      // of a kind that Postern does not know
    }
  }
  return [...keys].sort().slice(0, MAX_KEYS)
}
