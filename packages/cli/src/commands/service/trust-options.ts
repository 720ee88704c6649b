import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { PolicyResponse } from '@postern/shared/api/policy'
import { PosternError } from '@postern/shared/errors'
import type { Policy } from '@postern/shared/policy'
import { formatSubjectRule, parseSubjectRule } from '@postern/shared/subject-text'
import { unreadableFile } from '@postern/shared/unreadable-file'
import type { Command } from 'commander'
import type { EdgeApi } from '../../api/edge-api.ts'
import { getPolicy, replacePolicy } from '../../api/policy-api.ts'
import type { Session } from '../../credentials/session.ts'
import { printable } from '../../io.ts'
import { changeTrust, type TrustChange } from '../../policy/trust-change.ts'
import { toRequest } from '../policy/reach.ts'

/** The CAs of others that a service trusts, as options of `service update`. They stand in the service's policy. */
export interface TrustOptions {
  trustedClientCa?: string[]
  trustedClientCrl?: string[]
  removeTrustedClientCa?: string[]
  allowSubject?: string[]
  removeSubject?: string[]
}

const collect = (text: string, before: string[] = []): string[] => [...before, text]

export function addTrustOptions(command: Command): Command {
  return command
    .option(
      '--trusted-client-ca <name=file>',
      'trust certificates that this CA of somebody else has signed, where a subject is admitted',
      collect,
    )
    .option('--trusted-client-crl <name=file>', 'its list of revoked certificates', collect)
    .option('--remove-trusted-client-ca <name>', 'trust it no more', collect)
    .option('--allow-subject <subject>', 'admit whom it names so: acme:C=DE,O=Acme,CN=sensor-*', collect)
    .option('--remove-subject <subject>', 'admit them no more', collect)
}

/** Reads the files too: one bad entry stops the whole command.
 *  @returns undefined when no option was given
 *  @throws USAGE_INVALID names the entry */
export function readTrustChange(options: TrustOptions): TrustChange | undefined {
  const given = [
    options.trustedClientCa,
    options.trustedClientCrl,
    options.removeTrustedClientCa,
    options.allowSubject,
    options.removeSubject,
  ]
  if (given.every((values) => values === undefined)) return undefined
  const cas = readEntries('--trusted-client-ca', options.trustedClientCa)
  const crls = readEntries('--trusted-client-crl', options.trustedClientCrl)
  return {
    trust: [...cas].map(([name, file]) => ({ name, certificate: readCa(name, file) })),
    crls: new Map([...crls].map(([name, file]) => [name, readCrl(name, file)])),
    distrust: options.removeTrustedClientCa ?? [],
    admit: (options.allowSubject ?? []).map(parseSubjectRule),
    dismiss: (options.removeSubject ?? []).map(parseSubjectRule),
  }
}

/** Written over the policy that was read, and refused when somebody else has changed that meanwhile. */
export async function applyTrust(
  api: EdgeApi,
  session: Session,
  { service, change }: { service: string; change: TrustChange },
): Promise<PolicyResponse> {
  const { policy, revision } = await getPolicy(api, session, service)
  return replacePolicy(api, session, { service, policy: toRequest(changeTrust(policy, change)), revision })
}

/** What `service show` says of it. */
export function describeTrust(policy: Policy): string[] {
  const cas = (policy.trustedClientCas ?? []).map(({ name, certificate, crl }) => {
    const { fingerprint256, validTo } = new X509Certificate(certificate)
    const until = new Date(validTo).toISOString()
    const list = crl === undefined ? '' : ', with a list of revoked certificates'
    return `  trusts      ${name} until ${until}${list}: sha256:${fingerprint256.replaceAll(':', '').toLowerCase()}`
  })
  const subjects = listSubjects(policy).map(({ subject, isConditional }) => {
    const condition = isConditional ? ' (on conditions: postern policy get)' : ''
    return `  subject     ${subject}${condition}`
  })
  return [...cas, ...subjects].map(printable)
}

/** Whom the policy admits by the certificates of those CAs. */
export function listSubjects({ allow }: Policy): { subject: string; isConditional: boolean }[] {
  return allow.flatMap(({ subjects = [], when }) =>
    subjects.map((subject) => ({ subject: formatSubjectRule(subject), isConditional: when !== undefined })),
  )
}

const NAME = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/

/** @returns name → file */
function readEntries(option: string, entries: readonly string[] = []): Map<string, string> {
  const files = new Map<string, string>()
  for (const entry of entries) {
    const [name = '', file = ''] = [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]
    if (!entry.includes('=') || file === '') {
      throw invalid(`${option} ${entry}: a name and a file belong there`, 'write it as in acme=acme-ca.pem')
    }
    if (!NAME.test(name)) {
      throw invalid(
        `${option} ${entry}: ${JSON.stringify(name)} is no name for a CA`,
        'use up to 32 lower-case letters, digits and inner hyphens',
      )
    }
    if (files.has(name)) throw invalid(`${option}: ${name} is there twice`, 'name each CA once')
    files.set(name, file)
  }
  return files
}

const MAX_CA_BYTES = 16_384
const MAX_CRL_BYTES = 262_144

/** @returns PEM of the one certificate in it: nothing else of the file goes to the edge */
function readCa(name: string, file: string): string {
  const bytes = readBounded(name, file, MAX_CA_BYTES)
  const hint = 'give the one certificate of the CA that signs, in PEM or DER'
  const blocks = bytes.toString('latin1').match(/-----BEGIN [^-]*-----/g) ?? []
  if (blocks.some((block) => block.includes('KEY'))) {
    throw invalid(`${name}: ${file} has a private key in it, which nobody but that CA should have`, hint)
  }
  if (blocks.length > 1) throw invalid(`${name}: ${file} has ${blocks.length} certificates in it`, hint)
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(bytes)
  } catch (cause) {
    throw invalid(`${name}: ${file} is no certificate`, hint, cause)
  }
  if (!certificate.ca) throw invalid(`${name}: ${file} is a certificate, but not one of a CA`, hint)
  if (certificate.validToDate.getTime() <= Date.now()) {
    throw invalid(`${name}: ${file} has expired on ${certificate.validToDate.toISOString()}`, hint)
  }
  return certificate.toString()
}

/** What is in it is the edge's to read. */
function readCrl(name: string, file: string): string {
  const bytes = readBounded(name, file, MAX_CRL_BYTES)
  const text = bytes.toString('latin1')
  if (text.includes('-----BEGIN X509 CRL-----')) return text
  if (bytes[0] !== 0x30) {
    throw invalid(`${name}: ${file} is no list of revoked certificates`, 'give it in PEM or DER')
  }
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN X509 CRL-----\n${lines.join('\n')}\n-----END X509 CRL-----\n`
}

function readBounded(name: string, file: string, maxBytes: number): Buffer {
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (cause) {
    throw unreadableFile(`${name}: ${file}`, cause)
  }
  if (bytes.length <= maxBytes) return bytes
  throw invalid(`${name}: ${file} is larger than ${maxBytes} bytes`, 'check the name of the file')
}

function invalid(message: string, hint: string, cause?: unknown): PosternError {
  return new PosternError('USAGE_INVALID', message, { hint, cause })
}
