import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { SSH_HOST_JWS_TYPE } from '@postern/shared/api/ssh'
import { parseSshCertificate, verifySshCertificate } from '@postern/shared/certs/ssh-certificate'
import { formatSshPublicKey, parseSshPublicKey, type SshPublicKey } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import { EdgeApi } from '../api/edge-api.ts'
import { callClaims, signConnectorCall } from '../connector/certificate.ts'
import { readCertificateOf } from '../connector/slots.ts'
import { edgeNow, type KnownEdge, readRemembered } from '../credentials/known-edge.ts'
import type { SshdLayout } from './drop-in.ts'
import type { EffectiveConfig } from './effective-config.ts'

/** Certificates for this machine's host keys, so that a first connection asks nobody to compare a fingerprint. The
 *  edge gives them to the connector of the service, and names that service's host alone. */

/** One host key of sshd, and the certificate of it. */
export interface HostKey {
  key: SshPublicKey
  certificateFile: string
}

export interface IssuedHostCertificate extends HostKey {
  line: string
}

/** The edge takes no more in one call. */
const MAX_HOST_KEYS = 8

/** Keys that sshd uses and Postern can certify. Those without a `.pub` beside them are left out. */
export function findHostKeys(config: EffectiveConfig, layout: SshdLayout): HostKey[] {
  const files = config.get('hostkey') ?? []
  return files.slice(0, MAX_HOST_KEYS).flatMap((file) => {
    if (!existsSync(`${file}.pub`)) return []
    try {
      const key = parseSshPublicKey(readFileSync(`${file}.pub`, 'utf8'))
      return [
        { key, certificateFile: path.join(layout.certificateFolder, `${path.basename(file)}-cert.pub`) },
      ]
    } catch {
      return [] // dsa, nistp521: clients have others to choose from
    }
  })
}

/** Asks in the connector's name. Each certificate is read again before sshd shows it: a wrong one would turn people
 *  away at the door.
 *  @param options.hostCas lines of those who may have signed it
 *  @throws CONNECTOR_REFUSED when no connector of the service has a valid certificate here */
export async function requestHostCertificates(
  edge: KnownEdge,
  {
    serviceHost,
    hostCas,
    hostKeys,
  }: { serviceHost: string; hostCas: readonly string[]; hostKeys: readonly HostKey[] },
): Promise<IssuedHostCertificate[]> {
  if (hostKeys.length === 0) return []
  const connector = readCertificateOf(edge, serviceHost)
  if (!connector) {
    throw new PosternError(
      'CONNECTOR_REFUSED',
      `no connector of ${serviceHost} has a valid certificate in ${edge.folder}`,
      { hint: 'start it first: postern connect …, with the same POSTERN_HOME' },
    )
  }
  const now = edgeNow(edge)
  const claims = {
    ...callClaims(connector.certificate, edge.origin, now),
    hostKeys: hostKeys.map(({ key }) => formatSshPublicKey(key)),
  }
  // keeps nothing: this runs as root, and files of root in the connector's folder would be in its way
  using api = new EdgeApi(edge, readRemembered(edge))
  const jws = signConnectorCall(connector.certificate, SSH_HOST_JWS_TYPE, claims)
  const { certificates } = await api.issueSshHostCertificates(jws)
  return hostKeys.map((hostKey, index) => {
    const line = certificates[index] ?? ''
    checkHostCertificate(line, hostKey.key, { serviceHost, hostCas, now })
    return { ...hostKey, line }
  })
}

/** @throws CERTIFICATE_REFUSED */
export function checkHostCertificate(
  line: string,
  key: SshPublicKey,
  { serviceHost, hostCas, now }: { serviceHost: string; hostCas: readonly string[]; now: number },
): void {
  const certificate = parseSshCertificate(line)
  verifySshCertificate(certificate, {
    authorities: hostCas.map(parseSshPublicKey),
    kind: 'host',
    principal: serviceHost,
    now,
  })
  if (certificate.subject.blob.equals(key.blob)) return
  throw new PosternError('CERTIFICATE_REFUSED', 'the host certificate is for another key')
}

/** When half of its life is over, another CA signs by now, or it is no certificate at all.
 *  @param options.signing line of the host CA that signs */
export function isRenewalDue(file: string, { signing, now }: { signing: string; now: number }): boolean {
  try {
    const { ca, notBefore, notAfter } = parseSshCertificate(readFileSync(file, 'utf8').trim())
    return formatSshPublicKey(ca) !== signing || now >= (notBefore + notAfter) / 2
  } catch {
    return true
  }
}
