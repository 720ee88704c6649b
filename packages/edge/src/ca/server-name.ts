import { isIP, isIPv6 } from 'node:net'
import { bytesOfAddress, isMapped, parseIpv6, plainAddress } from '@postern/shared/ip-address'

/** A name in the certificate of a private service. */
export interface ServerName {
  type: 'dns' | 'ip'
  value: string
}

export interface ServerNameRules {
  /** What the edge itself is called; `*.` in front for all one label below. */
  edgeNames: readonly string[]
  allowWildcard: boolean
}

const LABEL = /^(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$|^xn--[a-z0-9-]{0,58}[a-z0-9]$/
const MAX_NAME = 253

/** Strict, because nobody else looks: a program believes whatever this CA has signed.
 *  @throws Error whose message goes on after the text: `"x" is not …` */
export function parseServerName(text: string, rules: ServerNameRules): ServerName {
  return isIP(text) === 0 ? parseDnsName(text, rules) : parseAddress(text)
}

function parseDnsName(text: string, { edgeNames, allowWildcard }: ServerNameRules): ServerName {
  const name = text.toLowerCase()
  const isWildcard = name.startsWith('*.')
  const labels = (isWildcard ? name.slice(2) : name).split('.')
  if (
    name.length > MAX_NAME ||
    !labels.every((label) => LABEL.test(label)) ||
    !/^[a-z]/.test(labels.at(-1)!)
  ) {
    throw new Error('is no DNS name and no IP address')
  }
  if (labels.length < 2) throw new Error('is one label: write the whole name, db.internal for instance')
  if (isWildcard && !allowWildcard) {
    throw new Error('stands for every name below: name them, or say --unsafe-wildcard')
  }
  if (edgeNames.some((edge) => overlaps(name, edge.toLowerCase()))) {
    throw new Error('is a name of the edge, or below it: those have the certificate of the edge itself')
  }
  return { type: 'dns', value: name }
}

/** Whether a certificate for `name` would pass for one of the edge, or of anything below it. */
function overlaps(name: string, edge: string): boolean {
  const [base, domain] = [withoutStar(name), withoutStar(edge)]
  if (base === domain || base.endsWith(`.${domain}`)) return true
  return name.startsWith('*.') && domain.slice(domain.indexOf('.') + 1) === base
}

function withoutStar(name: string): string {
  return name.startsWith('*.') ? name.slice(2) : name
}

function parseAddress(text: string): ServerName {
  if (text.includes('%')) throw new Error('has a zone, which means something on its own machine only')
  if (isIPv6(text) && isMapped(parseIpv6(text))) {
    throw new Error('is an IPv4 address in disguise: write it as one')
  }
  const [first = 0] = bytesOfAddress(text)
  const value = plainAddress(text)
  const isUnicast = isIPv6(text) ? first !== 0xff : first > 0 && first < 224
  if (!isUnicast || value === '::') throw new Error('is no address of one machine')
  if (value === '::1' || (!isIPv6(text) && first === 127)) {
    throw new Error("is everybody's own machine: a certificate for it would pass for any service there")
  }
  return { type: 'ip', value }
}
