import path from 'node:path'
import type { SshCertificateResponse } from '@postern/shared/api/ssh'
import { parseSshCertificate } from '@postern/shared/certs/ssh-certificate'
import { formatSshPublicKey, parseSshPublicKeyBlob, sshFingerprint } from '@postern/shared/certs/ssh-key'
import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import { describeClock } from '../api/clock.ts'
import type { EdgeApi } from '../api/edge-api.ts'
import { callSignedIn, type LoginPolicy } from '../credentials/fresh.ts'
import { takeLock } from '../credentials/lock.ts'
import type { Session } from '../credentials/session.ts'
import { tell } from '../io.ts'
import { updateHostKeys } from './host-keys.ts'
import { formatPrivateKey, generateSshKey, type SshKeyType } from './key.ts'
import {
  hasFreshFiles,
  hashOf,
  readOwnKey,
  recordsFolder,
  type SshDestination,
  writeFiles,
} from './key-files.ts'

/** Gets a certificate for ssh from the edge and lays it beside its key. */

const LOCK_TIMEOUT_MS = 60_000
/** sshd and ssh compare certificates with their own clocks; the edge's begin some minutes in the past. */
const CLOCK_WARNING_MS = 60_000

/** @throws ACCESS_DENIED · SIGN_IN_REQUIRED · SSH_FILE_FOREIGN, with nothing written */
export async function issueKeyFiles(
  destination: SshDestination,
  wanted: SshKeyType | undefined,
  policy: LoginPolicy,
): Promise<void> {
  await refuseForeignFiles(destination) // before anybody is asked anything
  await callSignedIn(destination.edge, policy, async (api, session) => {
    // inside: who waits for a login waits for that, and gives up when it fails
    using _lock = await lockDestination(destination)
    if (!hasFreshFiles(destination, wanted)) await issue(api, session, destination, wanted)
  })
}

/** What looks like somebody else's may be what another process writes at this moment: it holds the lock until the record
 *  and both files are there.
 *  @throws SSH_FILE_FOREIGN */
async function refuseForeignFiles(destination: SshDestination): Promise<void> {
  try {
    readOwnKey(destination)
  } catch (error) {
    if (!(error instanceof PosternError) || error.code !== 'SSH_FILE_FOREIGN') throw error
    using _lock = await lockDestination(destination)
    readOwnKey(destination)
  }
}

/** Of twenty processes one asks the edge. */
export function lockDestination({ edge, label }: SshDestination) {
  return takeLock(path.join(recordsFolder(edge), `${label}.lock`), { timeoutMs: LOCK_TIMEOUT_MS })
}

async function issue(
  api: EdgeApi,
  session: Session,
  destination: SshDestination,
  wanted: SshKeyType | undefined,
): Promise<void> {
  const kept = readOwnKey(destination)
  const key = kept && (wanted ?? kept.type) === kept.type ? undefined : generateSshKey(wanted ?? 'ed25519')
  const publicBlob = key?.publicBlob ?? kept!.blob
  const issued = await requestCertificate(api, session, destination, publicBlob)
  const { pending } = await updateHostKeys(api, session, destination)
  const certificate = `${issued.certificate}\n`
  writeFiles(
    destination,
    {
      host: destination.host,
      keyType: key?.type ?? kept!.type,
      fingerprint: sshFingerprint(publicBlob),
      certificateHash: hashOf(certificate),
      notAfter: issued.notAfter,
      ...(pending ? { hostKeysPending: 1 } : {}),
    },
    { key: key && formatPrivateKey(key, destination.host), certificate },
  )
}

/** @throws PROTOCOL_INVALID when the answer is not a certificate of this key */
export async function requestCertificate(
  api: EdgeApi,
  session: Session,
  { host }: SshDestination,
  publicBlob: Buffer,
): Promise<SshCertificateResponse> {
  const publicKey = formatSshPublicKey(parseSshPublicKeyBlob(publicBlob))
  const issued = await api.issueSshCertificate(session, { host, publicKey })
  const { kind, subject } = parseSshCertificate(issued.certificate)
  if (issued.certificate.includes('\n') || kind !== 'user' || !subject.blob.equals(publicBlob)) {
    throw new PosternError(
      'PROTOCOL_INVALID',
      `the edge's certificate for ${host} is not of the key that asked`,
    )
  }
  warnOfClock(api, issued)
  return issued
}

/** The edge's clock and sshd's decide; a clock that is off here makes ssh refuse host certificates, and mostly is
 *  off on the server beside it too. Without this sentence there is only sshd's "Permission denied". */
function warnOfClock({ memory }: EdgeApi, { notBefore, notAfter }: SshCertificateResponse): void {
  const { clockOffsetMs } = memory
  if (Math.abs(clockOffsetMs) < CLOCK_WARNING_MS) return
  const isOutside = Date.now() < notBefore || Date.now() > notAfter
  const meaning = isOutside
    ? 'by it, the certificate is not valid now'
    : `certificates here live for ${formatDuration(notAfter - notBefore)}`
  tell(`warning: ${describeClock(clockOffsetMs)}; ${meaning} (CLOCK_OFF)`)
}
