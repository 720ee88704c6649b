import { createPrivateKey, X509Certificate } from 'node:crypto'
import {
  keepNextKey,
  readFolder,
  replaceCa,
  writeCertificate,
} from '@postern/shared/certs/certificate-folder'
import { createCsr, generateKey } from '@postern/shared/certs/csr'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { renewWorkloadCertificate } from '../../api/certificate-api.ts'
import { EdgeApi } from '../../api/edge-api.ts'
import { stateFolder } from '../../credentials/home.ts'
import { edgeNow, type KnownEdge, listEdges } from '../../credentials/known-edge.ts'
import { printable, printJson, tell } from '../../io.ts'
import { addExamples } from '../examples.ts'
import { parseEdgeOrigin } from '../options.ts'

interface RenewOptions {
  edge?: string
  json?: boolean
}

async function runCertificateRenew(folder: string, options: RenewOptions): Promise<void> {
  const { key, cert, nextKey, ca } = readFolder(folder)
  const domain = readDomain(cert, folder)
  const known = findEdge(domain, options.edge)
  const edge = known ?? { origin: options.edge ?? `https://${domain}`, caPem: ca }
  const keyPem = nextKey ?? generateKey().keyPem
  const csr = createCsr(readKey(keyPem, folder))
  // the answer may be lost: whoever asks again with another key has shown that two hold the old one
  if (nextKey === undefined) keepNextKey(folder, keyPem)
  const now = known ? edgeNow(known) : Date.now()
  const renewed = await renewWorkloadCertificate(edge, { key, cert, csr, now })
  writeCertificate(folder, renewed, keyPem)
  await followCa(folder, { origin: edge.origin, caPem: ca })
  const { certificate: _certificate, chain: _chain, ...facts } = renewed
  if (options.json) return printJson({ ...facts, folder })
  const until = new Date(renewed.notAfter).toISOString()
  tell(`${printable(folder)} holds a new certificate of ${printable(renewed.name)}, until ${until}`)
}

/** The program believes the edge by the file beside its certificate. */
async function followCa(folder: string, edge: { origin: string; caPem?: string | undefined }): Promise<void> {
  if (edge.caPem === undefined) return
  const { findNextCas } = await import('../../credentials/follow-cas.ts')
  using api = new EdgeApi(edge)
  await api.getEdge().catch(() => undefined) // it is asked again with the next renewal
  const caPem = await findNextCas(edge, api)
  if (caPem !== undefined) replaceCa(folder, caPem)
}

/** Nobody has to have signed in on the machine of a program: then the folder says whom to trust. */
function findEdge(domain: string, origin: string | undefined): KnownEdge | undefined {
  const fitting = listEdges(stateFolder()).filter((edge) =>
    origin === undefined ? edge.domain === domain : edge.origin === origin,
  )
  if (fitting.length <= 1) return fitting[0]
  throw new PosternError('USAGE_INVALID', `several edges you signed in to serve ${domain}`, {
    hint: `name one: ${fitting.map((edge) => `--edge ${edge.origin}`).join(' or ')}`,
  })
}

/** Of the edge that has signed it. */
function readDomain(pem: string, folder: string): string {
  const [, domain] = /URI:postern:\/\/([a-z0-9.-]+)\/service\//.exec(readNames(pem) ?? '') ?? []
  if (domain !== undefined) return domain
  throw new PosternError('USAGE_INVALID', `${folder} holds no certificate of an edge`, {
    hint: 'name a folder that postern certificate issue has written',
  })
}

function readNames(pem: string): string | undefined {
  try {
    return new X509Certificate(pem).subjectAltName
  } catch {
    return undefined
  }
}

function readKey(pem: string, folder: string) {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw new PosternError('USAGE_INVALID', `the key of a renewal in ${folder} cannot be read`, { cause })
  }
}

export function addCertificateRenew(parent: Command): void {
  const command = parent
    .command('renew')
    .description('renew the certificate in a folder by itself: nobody has to be signed in')
    .argument('<folder>', 'what postern certificate issue has written')
    .option(
      '--edge <url>',
      'the edge, when its port is not 443 and nobody has signed in here',
      parseEdgeOrigin,
    )
    .option('--json', 'print JSON')
    .action(runCertificateRenew)
  addExamples(command, [['with a key that is made for it', 'postern certificate renew carbon-relay-3']])
}
