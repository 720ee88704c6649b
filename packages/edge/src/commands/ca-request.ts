import { open } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { openAuthorities } from '../ca/authorities.ts'
import { requestEdgeCa } from '../ca/requested-ca.ts'
import { loadConfig } from '../config/load.ts'
import type { ProgramParts } from '../program.ts'
import { requireOwner } from './on-host.ts'
import { configOption } from './options.ts'

export function addCaRequest(group: Command, parts: ProgramParts): void {
  group
    .command('request')
    .description(
      "make a key for the CA of the edge's own certificate, and a request for a root that somebody else keeps",
    )
    .addOption(configOption())
    .requiredOption('--out <file>', 'write the request (PKCS#10, PEM) there')
    .addHelpText(
      'after',
      `
The key stays in data_dir. Have the root sign the request as a CA, and import what it has signed: postern-edge ca import. Nothing
changes before.

Examples:
  $ postern-edge ca request --config /etc/postern-edge/edge.yaml --out edge-ca.csr
  $ easyrsa import-req edge-ca.csr edge && easyrsa sign-req ca edge     # where the root is
  $ cat pki/issued/edge.crt pki/ca.crt > edge-ca-chain.pem
  $ postern-edge ca import --config /etc/postern-edge/edge.yaml --certificate edge-ca-chain.pem`,
    )
    .action(async ({ config: file, out }: { config: string; out: string }) => {
      const { dataDir, domain, ca } = loadConfig(file)
      await requireOwner(dataDir)
      await openAuthorities(dataDir, Date.now(), { lock: ca.keyLock, domain })
      // before there is a key: one that nobody has a request for is of no use
      await using handle = await open(path.resolve(parts.cwd, out), 'wx', 0o644).catch(refuse(out))
      await handle.writeFile(await requestEdgeCa(dataDir, ca.keyLock))
      parts.stderr.write(`postern-edge: wrote the request to ${out}; its key stays in ${dataDir}/ca\n`)
    })
}

function refuse(file: string) {
  return (cause: NodeJS.ErrnoException) => {
    const reason = cause.code === 'EEXIST' ? 'it is there already' : String(cause.code)
    throw new PosternError('USAGE_INVALID', `${file} cannot be written: ${reason}`, {
      hint: 'name another file with --out',
      cause,
    })
  }
}
