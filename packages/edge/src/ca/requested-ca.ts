import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import path from 'node:path'
import { duplexPair } from 'node:stream'
import tls from 'node:tls'
import { PosternError } from '@postern/shared/errors'
import { replacePrivateFile, writePrivateFile } from '../private-file.ts'
import {
  certificateFile,
  fingerprintOf,
  generateKey,
  loadAuthorities,
  openAuthority,
  rootOf,
} from './authorities.ts'
import { generationsOf, readGenerations } from './generations.ts'
import { issueEdgeCertificate } from './issue-edge.ts'
import { encodeKey, type KeyLock, readKey } from './key-file.ts'
import { nameOf, SIGNING_ALGORITHM } from './leaf.ts'
import { requireSettled, useEdgeCa } from './rotate.ts'
import { keyIdOf, toSigningKey } from './sign-ca.ts'
import { x509 } from './x509.ts'

/** The CA of the edge's own certificate below a root that somebody else keeps: the key is made here and stays, they sign a
 *  request for it, and what they have signed is looked at as a client would before anything changes. */

/** Makes the key. @returns the request, PEM */
export async function requestEdgeCa(dataDir: string, lock: KeyLock | undefined): Promise<string> {
  const privateKey = generateKey()
  const id = keyIdOf(privateKey)
  const signingKey = toSigningKey(privateKey)
  const publicKey = createPublicKey(privateKey).toCryptoKey(SIGNING_ALGORITHM, true, ['verify'])
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: nameOf(`Postern edge CA ${id}`).toJSON(),
    keys: { privateKey: signingKey, publicKey },
    signingAlgorithm: SIGNING_ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  })
  await writePrivateFile(path.join(dataDir, 'ca', `${fileName(id)}.key`), encodeKey(privateKey, lock))
  return `${request.toString('pem')}\n`
}

export interface ImportSettings {
  domain: string
  lock: KeyLock | undefined
  now: number
  /** Asked when people trust another root than the one of the chain. */
  mayChangeRoot: () => Promise<boolean>
}

/** Puts a CA that was signed elsewhere in the place of the one that signs for the edge now.
 *  @param pem it and its root, in any order
 *  @returns the fingerprint that people trust from now on
 *  @throws USAGE_INVALID · CONFIG_INVALID people trust another root · CA_ROTATING · CA_KEY_LOCKED */
export async function importEdgeCa(
  dataDir: string,
  pem: string,
  { domain, lock, now, mayChangeRoot }: ImportSettings,
): Promise<string> {
  const { own, root } = readChain(pem)
  const name = fileName(keyIdOf(own.publicKey))
  const privateKey = await readRequestedKey(path.join(dataDir, 'ca', `${name}.key`), own, lock)
  const certificatePem = `${own.toString()}${root.toString()}`
  await verifyAsClient({ certificatePem, privateKey, domain, now })

  const generations = generationsOf(await readGenerations(dataDir), 'edge')
  requireSettled('edge', generations, now)
  if (generations.all.some((one) => one.name === name)) throw invalid('was imported before')
  const { edge } = await loadAuthorities(dataDir, lock, now)
  const fingerprint = fingerprintOf({ certificatePem })
  if (fingerprint !== fingerprintOf(edge) && !(await mayChangeRoot())) {
    throw new PosternError('CONFIG_INVALID', `people trust another root: ${fingerprintOf(edge)}`, {
      hint: 'have that root sign it; or --unsafe-new-root, after which everybody has to sign in with the new fingerprint',
    })
  }
  await replacePrivateFile(certificateFile(path.join(dataDir, 'ca'), name), certificatePem)
  await useEdgeCa(dataDir, name, now)
  return fingerprint
}

function fileName(id: string): string {
  return `edge-ca-${id.slice(0, 8)}`
}

const MAX_CHAIN_CHARACTERS = 64 * 1024
/** It goes through memory. */
const HANDSHAKE_TIMEOUT_MS = 10_000

function readChain(pem: string): { own: X509Certificate; root: X509Certificate } {
  const blocks =
    pem.length > MAX_CHAIN_CHARACTERS
      ? []
      : (pem.match(/-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g) ?? [])
  if (blocks.length !== 2) {
    throw invalid(
      `holds ${blocks.length} certificates: it has to be the CA of the edge, and the root that has signed it`,
    )
  }
  const certificates = blocks.map(parse)
  const root = certificates.find((one) => one.checkIssued(one) && one.verify(one.publicKey))
  const own = certificates.find((one) => one !== root)
  if (!root || !own) throw invalid('has no root: its last certificate has to be signed by itself')
  return { own, root }
}

function parse(block: string): X509Certificate {
  try {
    return new X509Certificate(block)
  } catch (cause) {
    throw invalid('cannot be read', cause)
  }
}

async function readRequestedKey(
  file: string,
  own: X509Certificate,
  lock: KeyLock | undefined,
): Promise<KeyObject> {
  const key = await readKey(file, lock).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw invalid(
      'is for a key that is not here: import it where postern-edge ca request has made the key',
      cause,
    )
  })
  if (!own.checkPrivateKey(key)) throw invalid('is for another key than the one that was requested')
  return key
}

/** Signs a certificate of the edge with it and shows that to OpenSSL: dates, path lengths, uses and name constraints are
 *  judged by what clients judge with. */
async function verifyAsClient(given: {
  certificatePem: string
  privateKey: KeyObject
  domain: string
  now: number
}): Promise<void> {
  const { certificatePem, privateKey, domain, now } = given
  const signingKey = toSigningKey(privateKey)
  const authority = await openAuthority({ kind: 'edge', certificatePem, certificateFile: '', signingKey })
  const { certificate, key } = await issueEdgeCertificate(authority, domain, now)
  const [near, far] = duplexPair()
  const server = new tls.TLSSocket(far, { isServer: true, key, cert: certificate + certificatePem })
  const client = tls.connect({
    socket: near,
    ca: rootOf(certificatePem),
    servername: `mtls.${domain}`,
    rejectUnauthorized: true, // said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would otherwise switch it off
  })
  server.on('error', (error) => client.destroy(error))
  try {
    await once(client, 'secureConnect', { signal: AbortSignal.timeout(HANDSHAKE_TIMEOUT_MS) })
  } catch (cause) {
    throw invalid(`would be refused by every client: ${(cause as Error).message}`, cause)
  } finally {
    client.destroy()
    server.destroy()
  }
}

function invalid(what: string, cause?: unknown): PosternError {
  return new PosternError('USAGE_INVALID', `the file of the new CA ${what}`, {
    hint: 'have the root sign the request of postern-edge ca request as a CA, and put both certificates into one file',
    cause,
  })
}
