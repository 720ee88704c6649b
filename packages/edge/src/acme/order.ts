import { KeyObject } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import { SIGNING_ALGORITHM } from '../ca/leaf.ts'
import { x509 } from '../ca/x509.ts'
import type { ServerIdentity } from '../flow/rooms.ts'
import { checkPair } from '../server-certificate/pair.ts'
import type { ChallengeSolver } from './challenges.ts'
import type { AcmeClient } from './client.ts'
import { type AcmeAnswer, Authorization, describeProblem, Order, readChain, readMessage } from './messages.ts'

/** One order (RFC 8555 §7.4): every name is proven, then a new key is certified for all of them. Nothing is shown or
 *  kept here; what is returned is good, or this throws.
 *  @throws ACME_CHALLENGE_FAILED · ACME_HOOK_FAILED · what `AcmeClient` throws */
export async function orderCertificate(
  client: AcmeClient,
  {
    names,
    solver,
    now,
    replaces,
  }: {
    names: readonly string[]
    solver: ChallengeSolver
    now: () => number
    /** What the CA calls the certificate before. */
    replaces?: string | undefined
  },
): Promise<ServerIdentity> {
  const ordered = await placeOrder(client, names, replaces)
  const order = readMessage(Order, ordered, 'order')
  const url = locationOf(ordered.header('location'))
  await proveNames(client, order, solver)

  const { key, csr } = await makeRequest(names)
  await client.post(order.finalize, { csr })
  const done = await client.poll(Order, url, {
    what: 'order',
    isOver: ({ status }) => status !== 'processing' && status !== 'ready' && status !== 'pending',
  })
  if (done.status !== 'valid' || done.certificate === undefined) {
    const said = done.error ? describeProblem(done.error) : `the order is ${done.status.slice(0, 40)}`
    throw new PosternError('ACME_REFUSED', `the ACME server gives no certificate: ${said}`)
  }
  const identity = { key, cert: readChain(await client.post(done.certificate)) }
  try {
    checkPair(identity, { names, keyName: 'that was made for it', now: now() })
  } catch (cause) {
    const message = `the certificate of the ACME server ${(cause as Error).message}`
    throw new PosternError('ACME_PROTOCOL_INVALID', message, { cause })
  }
  return identity
}

/** Which certificate it replaces is said where the CA has a use for that (RFC 9773 §5). One that does not take it so may
 *  know better, as when it was replaced before: a certificate is worth more than the remark. */
async function placeOrder(
  client: AcmeClient,
  names: readonly string[],
  replaces: string | undefined,
): Promise<AcmeAnswer> {
  const { newOrder, renewalInfo } = await client.directory()
  const order = { identifiers: names.map((value) => ({ type: 'dns', value })) }
  if (renewalInfo === undefined || replaces === undefined) return client.post(newOrder, order)
  try {
    return await client.post(newOrder, { ...order, replaces })
  } catch (error) {
    if (!(error instanceof PosternError && error.code === 'ACME_REFUSED')) throw error
    return client.post(newOrder, order)
  }
}

/** All proofs are in their places before the server looks for the first: a name and its wildcard share a DNS record. */
async function proveNames(client: AcmeClient, order: Order, solver: ChallengeSolver): Promise<void> {
  await using proofs = new AsyncDisposableStack()
  const asked: { authorization: string; challenge: string }[] = []
  for (const authorization of order.authorizations) {
    const { identifier, status, challenges } = await client.read(
      Authorization,
      authorization,
      'authorization',
    )
    if (status === 'valid') continue
    const name = identifier.value
    const challenge = challenges.find(({ type }) => type === solver.type)
    if (challenge?.token === undefined) {
      const offered = challenges.map(({ type }) => type).join(', ') || 'nothing'
      const message = `the ACME server does not offer ${solver.type} for ${name}, but ${offered}`
      throw new PosternError('ACME_REFUSED', message)
    }
    const { token } = challenge
    const keyAuthorization = await client.keyAuthorization(token)
    proofs.use(await solver.present({ name, token, keyAuthorization }, client.signal))
    asked.push({ authorization, challenge: challenge.url })
  }
  for (const { challenge } of asked) await client.post(challenge, {})
  for (const { authorization } of asked) await waitUntilProven(client, authorization, solver)
}

async function waitUntilProven(client: AcmeClient, url: string, { type }: ChallengeSolver): Promise<void> {
  const { identifier, status, challenges } = await client.poll(Authorization, url, {
    what: 'authorization',
    isOver: (read) => read.status !== 'pending',
  })
  if (status === 'valid') return
  const problem = challenges.find((challenge) => challenge.type === type)?.error
  const said = problem ? describeProblem(problem) : `the authorization is ${status.slice(0, 40)}`
  throw new PosternError(
    'ACME_CHALLENGE_FAILED',
    `${identifier.value} could not be proven by ${type}: ${said}`,
  )
}

/** A new key for every certificate, and the request for it (RFC 2986), base64url. */
async function makeRequest(names: readonly string[]): Promise<{ key: string; csr: string }> {
  const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ])
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    keys,
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value })))],
  })
  const key = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString()
  return { key, csr: Buffer.from(request.rawData).toString('base64url') }
}

function locationOf(header: string | undefined): string {
  if (header && URL.canParse(header) && new URL(header).protocol === 'https:') return header
  throw new PosternError('ACME_PROTOCOL_INVALID', 'the ACME server does not say where the order is')
}
