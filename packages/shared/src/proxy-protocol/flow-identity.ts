/** Who is at the other end of a flow, said to the service behind a connector: a JWS (RFC 7515) in a value of the PROXY
 *  header, signed by the edge with a key that signs nothing else. It holds for one connection between two addresses, for
 *  a minute, and for nobody but the service that it names: it is no ticket to anything. */
import { createHash, createPublicKey, type JsonWebKey, type KeyObject, sign, verify } from 'node:crypto'
import * as v from 'valibot'
import { PosternError } from '../errors.ts'
import { formatAddress, type IpEndpoint } from '../ip-address.ts'
import type { ProxyHeader } from './header.ts'

/** Among the types that the specification leaves to applications, and none of a large cloud's. */
export const FLOW_IDENTITY_TYPE = 0xe5
/** What a connector requires of an edge (`requires` of attach): open frames with both addresses and a signed identity. */
export const FLOW_IDENTITY_FEATURE = 'flow-identity'
/** Where the edge shows its keys, as a JWK Set (RFC 7517 §5). */
export const FLOW_IDENTITY_KEYS_PATH = '/v1/flow-identity-keys'
export const FLOW_IDENTITY_TTL_SECONDS = 60
export const MAX_FLOW_IDENTITY_BYTES = 2_048
const JWS_TYPE = 'postern-flow+jwt'
const MAX_KEYS = 32

const text = (max: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(max))
const seconds = v.pipe(v.number(), v.safeInteger(), v.minValue(0))

/** What the edge states. Names as in RFC 7519 where that has one. */
const Claims = v.object({
  /** Origin of the edge, `https://edge.example.com`. */
  iss: text(300),
  /** Host of the service, `<label>.<domain>`. */
  aud: text(253),
  service_id: text(128),
  /** Who: id of the identity, and their address. */
  sub: text(128),
  email: text(320),
  flow_id: text(128),
  connector_id: text(128),
  /** Both ends of the client's connection to the edge, as they stand in the header. */
  src: text(60),
  dst: text(60),
  /** Epoch seconds, by the edge's clock. */
  iat: seconds,
  exp: seconds,
})
const Header = v.strictObject({ alg: v.literal('EdDSA'), typ: v.literal(JWS_TYPE), kid: text(128) })
const Keys = v.object({
  keys: v.pipe(
    v.array(
      v.object({ kty: v.string(), crv: v.optional(v.string()), x: v.optional(v.string()), kid: text(128) }),
    ),
    v.maxLength(MAX_KEYS),
  ),
})

export interface FlowIdentity {
  issuer: string
  service: string
  serviceId: string
  identityId: string
  email: string
  flowId: string
  connectorId: string
  source: string
  destination: string
  /** Epoch milliseconds, by the edge's clock. */
  issuedAt: number
  expiresAt: number
}

export interface FlowIdentityKey {
  id: string
  key: KeyObject
}

/** What the reader of a connection knows by itself. */
export interface ExpectedFlow {
  /** The edge's, and of no other edge. */
  keys: readonly FlowIdentityKey[]
  issuer: string
  /** Host of the service that reads this. */
  service: string
  /** From the header, of this very connection. */
  source: IpEndpoint
  destination: IpEndpoint
  /** Epoch milliseconds. */
  now: number
  /** How far this machine's clock may be off. Five seconds by default. */
  clockToleranceMs?: number
}

/** @param key Ed25519 · @param now epoch milliseconds */
export function signFlowIdentity(
  facts: Omit<FlowIdentity, 'issuedAt' | 'expiresAt' | 'source' | 'destination'> &
    Pick<ExpectedFlow, 'source' | 'destination'>,
  { id, key }: FlowIdentityKey,
  now: number,
): string {
  const iat = Math.floor(now / 1_000)
  const claims: v.InferOutput<typeof Claims> = {
    iss: facts.issuer,
    aud: facts.service,
    service_id: facts.serviceId,
    sub: facts.identityId,
    email: facts.email,
    flow_id: facts.flowId,
    connector_id: facts.connectorId,
    src: formatAddress(facts.source.host, facts.source.port),
    dst: formatAddress(facts.destination.host, facts.destination.port),
    iat,
    exp: iat + FLOW_IDENTITY_TTL_SECONDS,
  }
  const header = { alg: 'EdDSA', typ: JWS_TYPE, kid: id } satisfies v.InferOutput<typeof Header>
  const signed = `${encode(header)}.${encode(claims)}`
  return `${signed}.${sign(null, Buffer.from(signed), key).toString('base64url')}`
}

/** The identity that a PROXY header carries, once everything about it has been checked.
 *  @throws FLOW_IDENTITY_INVALID with what is wrong; treat the connection as nobody's then */
export function readFlowIdentity(
  header: ProxyHeader,
  expected: Omit<ExpectedFlow, 'source' | 'destination'>,
): FlowIdentity {
  if (header.command === 'local') throw invalid('the header names nobody: its sender speaks for itself')
  const [found, ...more] = header.values.filter(({ type }) => type === FLOW_IDENTITY_TYPE)
  if (!found || more.length > 0) throw invalid(`the header has ${found ? 'more than one' : 'no'} identity`)
  const { source, destination } = header
  return verifyFlowIdentity(found.value, { ...expected, source, destination })
}

/** @throws FLOW_IDENTITY_INVALID with what is wrong */
export function verifyFlowIdentity(token: Buffer, expected: ExpectedFlow): FlowIdentity {
  if (token.length > MAX_FLOW_IDENTITY_BYTES) throw invalid('the identity is too long')
  const [, signed, head, body, end] =
    /^(([\w-]+)\.([\w-]+))\.([\w-]{86})$/.exec(token.toString('latin1')) ?? []
  if (signed === undefined) throw invalid('the identity is no compact JWS')
  const { kid } = decode(Header, head!, 'header')
  const key = expected.keys.find(({ id }) => id === kid)
  if (!key) throw invalid('the identity is signed with a key that is not among the known ones')
  const signature = Buffer.from(end!, 'base64url')
  // one text for one signature: its last letter has bits that mean nothing
  if (signature.toString('base64url') !== end || !verify(null, Buffer.from(signed), key.key, signature))
    throw invalid('the signature of the identity is not the edge’s')
  const claims = decode(Claims, body!, 'payload')
  refuseElsewhere(claims, expected)
  refuseOtherTimes(claims, expected)
  return {
    issuer: claims.iss,
    service: claims.aud,
    serviceId: claims.service_id,
    identityId: claims.sub,
    email: claims.email,
    flowId: claims.flow_id,
    connectorId: claims.connector_id,
    source: claims.src,
    destination: claims.dst,
    issuedAt: claims.iat * 1_000,
    expiresAt: claims.exp * 1_000,
  }
}

/** The keys in what `FLOW_IDENTITY_KEYS_PATH` answers; those of other kinds are left out.
 *  @throws FLOW_IDENTITY_INVALID it is no JWK Set */
export function parseFlowIdentityKeys(json: unknown): FlowIdentityKey[] {
  const result = v.safeParse(Keys, json)
  if (!result.success) throw invalid('what should be the edge’s keys is no JWK Set')
  return result.output.keys.flatMap(({ kid, kty, crv, x }) => {
    if (kty !== 'OKP' || crv !== 'Ed25519' || !x || !/^[\w-]{43}$/.test(x)) return []
    return [{ id: kid, key: createPublicKey({ key: { kty, crv, x }, format: 'jwk' }) }]
  })
}

/** @param key Ed25519, private or public */
export function flowIdentityJwk(key: KeyObject): JsonWebKey & { kid: string } {
  const { x } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  // RFC 7638 §3, RFC 8037 §2
  const thumbprint = createHash('sha256').update(JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x }))
  return { kty: 'OKP', crv: 'Ed25519', x: x!, kid: thumbprint.digest('base64url'), use: 'sig', alg: 'EdDSA' }
}

function refuseElsewhere(claims: v.InferOutput<typeof Claims>, expected: ExpectedFlow): void {
  const { issuer, service, source, destination } = expected
  const pairs = [
    ['edge', claims.iss, issuer],
    ['service', claims.aud, service],
    ['client', claims.src, formatAddress(source.host, source.port)],
    ['address of the edge', claims.dst, formatAddress(destination.host, destination.port)],
  ] as const
  for (const [what, said, wanted] of pairs) {
    if (said !== wanted) throw invalid(`the identity is of another ${what}: ${JSON.stringify(said)}`)
  }
}

function refuseOtherTimes({ iat, exp }: v.InferOutput<typeof Claims>, expected: ExpectedFlow): void {
  const { now, clockToleranceMs = 5_000 } = expected
  if (exp <= iat || exp - iat > FLOW_IDENTITY_TTL_SECONDS)
    throw invalid('the identity is made to live too long')
  if (now + clockToleranceMs < iat * 1_000)
    throw invalid('the identity is of a time to come: compare the clocks')
  if (now - clockToleranceMs >= exp * 1_000) throw invalid('the identity has expired')
}

function decode<S extends v.GenericSchema>(schema: S, part: string, name: string): v.InferOutput<S> {
  try {
    return v.parse(schema, JSON.parse(Buffer.from(part, 'base64url').toString('utf8')))
  } catch (cause) {
    throw new PosternError('FLOW_IDENTITY_INVALID', `the ${name} of the identity is malformed`, { cause })
  }
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function invalid(message: string): PosternError {
  return new PosternError('FLOW_IDENTITY_INVALID', message)
}
