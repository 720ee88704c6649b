import { Needles } from './needles.ts'
import { type OutputSource, readOutputs, readSecrets } from './run-record.ts'
import { ENROLL_TOKEN } from './stored-secrets.ts'

/** Looks through everything that was said in a test run. It never repeats what it finds. */

export interface Finding {
  source: OutputSource
  kind: string
}

export interface ScanResult {
  findings: Finding[]
  /** How many different secrets of each kind were looked for. */
  lookedFor: Map<string, number>
  outputs: number
  bytes: number
}

/** Texts that are a secret by their form, also where nobody has noted them. */
const FORMS: readonly [kind: string, form: RegExp][] = [
  ['a private key', /-----BEGIN [A-Z ]*PRIVATE KEY-----/],
  ['a signed token', /\beyJ[\w-]{16,}\.eyJ[\w-]{16,}\.[\w-]{16,}/],
  ['an enroll token', ENROLL_TOKEN],
  ['an authorization code', /[?&]code=[\w-]{20,}/],
  ['a token by its name', /\b(?:access|refresh|id)_?token["']?\s*[:=]\s*["']?[\w-]{20,}/i],
  ['a device code by its name', /\bdevice_?code["']?\s*[:=]\s*["']?[\w-]{20,}/i],
  ['a cookie', /__(?:Host|Secure)-[\w.-]+=[\w.~-]{16,}/],
  ['an Authorization header', /\b(?:DPoP|Bearer) [\w.~+/-]{32,}/],
]

/** Who may say what, and why. Everything else may not. */
const ALLOWED: readonly { kind: RegExp; by: (source: OutputSource) => boolean }[] = [
  { kind: /enroll token$/, by: printsEnrollToken },
]

/** A whole run that has not seen one of these is blind on that eye. */
export const KINDS_OF_A_WHOLE_RUN: readonly string[] = [
  'access token',
  'refresh token',
  'ID token',
  'authorization code',
  'device code',
  'cookie',
  'DPoP key',
  'client key',
  'connector key',
  'authority key',
  'issuer key',
  'enroll token',
  'client secret',
  'database password',
]

export function scanOutputs(folder: string): ScanResult {
  const secrets = readSecrets(folder)
  const needles = new Needles(secrets)
  const result: ScanResult = { findings: [], lookedFor: countByKind(secrets), outputs: 0, bytes: 0 }
  for (const { source, text } of readOutputs(folder)) {
    result.outputs++
    result.bytes += text.length
    const forms = FORMS.filter(([, form]) => form.test(text)).map(([kind]) => kind)
    const kinds = [...forms, ...needles.findIn(text)].filter((kind) => !isAllowed(kind, source))
    result.findings.push(...kinds.map((kind) => ({ source, kind })))
  }
  return result
}

function isAllowed(kind: string, source: OutputSource): boolean {
  return ALLOWED.some((allowed) => allowed.kind.test(kind) && allowed.by(source))
}

/** The one command that hands a secret out: once, on stdout. */
function printsEnrollToken({ command, stream }: OutputSource): boolean {
  const words = command.join(' ')
  return / service enroll-token /.test(words) && !/ --out /.test(words) && stream === 'stdout'
}

function countByKind(secrets: readonly { kind: string }[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { kind } of secrets) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  return counts
}
