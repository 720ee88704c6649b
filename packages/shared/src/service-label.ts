import { PosternError } from './errors.ts'

/** The first part of a service's host name, `crimson-thunder-8434` in `crimson-thunder-8434.edge.example.com`.
 *  One DNS label in lower case: 3 to 63 letters, digits and inner hyphens (RFC 1123 §2.1). */
export type ServiceLabel = string & { readonly __brand: 'ServiceLabel' }

/** Names an edge keeps for itself, now or later. */
const RESERVED: ReadonlySet<string> = new Set([
  'mtls',
  'www',
  'edge',
  'admin',
  'api',
  'login',
  'oauth',
  'auth',
  'mail',
  'smtp',
  'ns1',
  'ns2',
  'autoconfig',
  'autodiscover',
  'wpad',
  'isatap',
  'localhost',
])

const LABEL = /^[a-z0-9](?:[a-z0-9-]{1,61}[a-z0-9])$/

/** @throws LABEL_INVALID */
export function parseServiceLabel(value: string): ServiceLabel {
  if (!LABEL.test(value) || value.slice(2, 4) === '--') {
    throw new PosternError('LABEL_INVALID', `${JSON.stringify(value)} is not a service label`)
  }
  if (RESERVED.has(value)) {
    throw new PosternError('LABEL_INVALID', `the label ${value} is kept for the edge itself`, {
      hint: 'choose another label',
    })
  }
  return value as ServiceLabel
}

/** The label of `host` when it is exactly one label below `domain`; undefined when it is not. */
export function labelOfHost(host: string, domain: string): ServiceLabel | undefined {
  const suffix = `.${domain}`
  if (!host.endsWith(suffix)) return undefined
  const label = host.slice(0, -suffix.length)
  return LABEL.test(label) && !RESERVED.has(label) && label.slice(2, 4) !== '--'
    ? (label as ServiceLabel)
    : undefined
}

/** Host names compare in lower case and without the root's dot (RFC 4343). */
export function normalizeHost(host: string): string {
  const lower = host.toLowerCase()
  return lower.endsWith('.') ? lower.slice(0, -1) : lower
}
