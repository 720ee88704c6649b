import { type Command, Option } from 'commander'
import { readCaFile } from '../ca-file.ts'
import { fetchPinnedCa, parseFingerprint } from '../login/pin-ca.ts'

/** How a machine is told the private CA of an edge: with the login, and with an enroll token. */

export interface CaOptions {
  caFile?: string | undefined
  caFingerprint?: Buffer | undefined
  publicCa?: boolean | undefined
}

/** @param known of an earlier login
 *  @returns PEM; undefined stands for the public CAs
 *  @throws EDGE_UNTRUSTED the edge does not show this root · USAGE_INVALID */
export async function readCa(
  origin: string,
  options: CaOptions,
  known: string | undefined,
): Promise<string | undefined> {
  if (options.caFile !== undefined) return readCaFile(options.caFile)
  if (options.publicCa) return undefined
  if (options.caFingerprint) return fetchPinnedCa(origin, options.caFingerprint)
  return known
}

export function addCaOptions(command: Command): Command {
  return command
    .option('--ca-file <file>', "the edge's own CA in PEM, when its certificate is not a public one")
    .addOption(
      new Option(
        '--ca-fingerprint <sha256:hex>',
        'the same, named by its fingerprint as postern-edge prints it; fetched from the edge',
      )
        .argParser(parseFingerprint)
        .conflicts('caFile'),
    )
    .addOption(
      new Option(
        '--public-ca',
        'forget the CA that was named before: the edge has a public certificate now',
      ).conflicts(['caFile', 'caFingerprint']),
    )
}
