import { createPrivateKey } from 'node:crypto'
import { keepNextKey, readFolder, writeCertificate } from '@postern/shared/certs/certificate-folder'
import { createCsr, generateKey } from '@postern/shared/certs/csr'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { renewWorkloadCertificate } from '../../api/certificate-api.ts'
import { stateFolder } from '../../credentials/home.ts'
import { pickEdge } from '../../credentials/known-edge.ts'
import { printable, printJson, tell } from '../../io.ts'
import { addExamples } from '../examples.ts'
import { parseEdgeOrigin } from '../options.ts'

interface RenewOptions {
  edge?: string
  json?: boolean
}

async function runCertificateRenew(folder: string, options: RenewOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const { key, cert, nextKey } = readFolder(folder)
  const keyPem = nextKey ?? generateKey().keyPem
  const csr = createCsr(readKey(keyPem, folder))
  // the answer may be lost: whoever asks again with another key has shown that two hold the old one
  if (nextKey === undefined) keepNextKey(folder, keyPem)
  const renewed = await renewWorkloadCertificate(edge, { key, cert, csr })
  writeCertificate(folder, renewed, keyPem)
  const { certificate: _certificate, chain: _chain, ...facts } = renewed
  if (options.json) return printJson({ ...facts, folder })
  const until = new Date(renewed.notAfter).toISOString()
  tell(`${printable(folder)} holds a new certificate of ${printable(renewed.name)}, until ${until}`)
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
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
    .action(runCertificateRenew)
  addExamples(command, [['with a key that is made for it', 'postern certificate renew carbon-relay-3']])
}
