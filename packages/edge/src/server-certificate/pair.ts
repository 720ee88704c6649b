import { createPrivateKey, X509Certificate } from 'node:crypto'
import tls from 'node:tls'
import type { ServerIdentity } from '../flow/rooms.ts'

/** What a server certificate must be before the edge shows it: the leaf first, with its key, for the edge's names, and
 *  something that TLS takes as a whole.
 *  @param names all of them must be covered
 *  @param keyName what the key is called in messages
 *  @param now epoch milliseconds; left out: the time is not looked at
 *  @throws Error whose message goes on after the certificate's name: `is not valid for …` */
export function checkPair(
  { cert, key }: ServerIdentity,
  { names, keyName, now }: { names: readonly string[]; keyName: string; now?: number },
): X509Certificate {
  const certificate = parseAs('a certificate in PEM', () => new X509Certificate(cert))
  const privateKey = parseAs(`a certificate whose key ${keyName} can be read`, () => createPrivateKey(key))
  if (!certificate.checkPrivateKey(privateKey)) throw new Error(`does not belong to the key ${keyName}`)
  const missing = names.find((name) => !coversName(certificate, name))
  if (missing !== undefined) throw new Error(`is not valid for ${missing}`)
  if (now !== undefined) checkTime(certificate, now)
  parseAs('a chain that TLS takes', () => tls.createSecureContext({ cert, key }))
  return certificate
}

function coversName(certificate: X509Certificate, name: string): boolean {
  // a wildcard has no host of its own: any label below it stands for all
  return certificate.checkHost(name.replace(/^\*\./, 'x.')) !== undefined
}

function checkTime({ validFromDate, validToDate }: X509Certificate, now: number): void {
  if (validToDate.getTime() <= now) throw new Error(`has expired, on ${validToDate.toISOString()}`)
  if (validFromDate.getTime() > now) throw new Error(`is not valid before ${validFromDate.toISOString()}`)
}

function parseAs<T>(what: string, parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    throw new Error(`is not ${what}: ${(cause as Error).message}`, { cause })
  }
}
