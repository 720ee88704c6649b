import { formatDuration } from '@postern/shared/duration'
import type { ErrorCode } from '@postern/shared/errors'
import type { Conditions, Hours } from '@postern/shared/policy'
import type { Decision, Denial } from './evaluate.ts'

/** What the person hears who is refused: as much as helps them, and nothing of who else is admitted. */
export function explainDenial({ code }: Pick<Denial, 'code'>, host: string): string {
  return (SENTENCES[code] ?? SENTENCES.ACCESS_DENIED!)(host)
}

const SENTENCES: Partial<Record<ErrorCode, (host: string) => string>> = {
  ACCESS_DENIED: (host) => `${host} is not available to you`,
  OUTSIDE_HOURS: (host) => `${host} is not open to you at this time`,
  NETWORK_NOT_ALLOWED: (host) => `${host} is not open to you from this network`,
  STRONGER_LOGIN_REQUIRED: (host) => `${host} asks for a stronger login than yours`,
  LOGIN_TOO_OLD: (host) => `${host} asks for a younger login than yours`,
  TOO_MANY_FLOWS: (host) => `you have as many flows to ${host} as you may`,
  FLOW_TOO_LONG: (host) => `a flow to ${host} may not last any longer`,
  CERTIFICATE_REVOKED: (host) => `the certificate that was shown to ${host} was revoked by its CA`,
  TRUSTED_CRL_EXPIRED: (host) => `${host} cannot tell which certificates of this CA are revoked`,
  SESSION_KIND_NOT_ALLOWED: (host) => `${host} does not admit logins of this kind`,
}

/** The whole decision in sentences, for auditors and whoever writes the policy. */
export function explainDecision(decision: Decision, who: string, host: string): string[] {
  if (!decision.allowed) {
    return [
      `${who} may not reach ${host}: ${decision.rule}.`,
      `They hear: ${explainDenial(decision, host)} (${decision.code}).`,
    ]
  }
  const { rule, until, limits } = decision
  const sentences = [`${who} may reach ${host}: ${rule}.`]
  if (until !== undefined)
    sentences.push(`This is decided again at ${new Date(until).toISOString()} at the latest.`)
  if (limits.maxFlowLengthMs !== undefined) {
    sentences.push(`A flow ends after ${formatDuration(limits.maxFlowLengthMs)}.`)
  }
  if (limits.maxFlowsPerIdentity !== undefined) {
    sentences.push(`They may have ${limits.maxFlowsPerIdentity} flows at once.`)
  }
  return sentences
}

/** Conditions in words, for `postern policy get` and the audit log. */
export function describeConditions(conditions: Conditions): string[] {
  const { sourceNetworks, hours, amr, acr, maxLoginAgeMs, sessionKinds } = conditions
  return [
    sourceNetworks && `from ${sourceNetworks.join(' or ')}`,
    hours?.map(describeHours).join(' or '),
    amr && `signed in with ${amr.join(' and ')}`,
    acr && `signed in with class ${acr.join(' or ')}`,
    maxLoginAgeMs !== undefined && `signed in at most ${formatDuration(maxLoginAgeMs)} ago`,
    sessionKinds && `signed in by ${sessionKinds.join(' or ')}`,
  ].filter((text) => typeof text === 'string')
}

function describeHours({ days, from, to, timeZone }: Hours): string {
  return `${days.join(', ')} ${from}–${to} (${timeZone})`
}
