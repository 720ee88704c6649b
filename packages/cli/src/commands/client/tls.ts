import type { Command } from 'commander'
import { type ClientCertificate, forgetCertificate, readCertificate } from '../../credentials/cache.ts'
import { stateFolder } from '../../credentials/home.ts'
import { findEdgeOfHost, withOrigin, withoutDummy } from '../../credentials/known-edge.ts'
import { useNetwork } from '../../network/options.ts'
import { dialService, joinService, type ServicePlace, spoilsCertificate } from '../../tunnel/service-flow.ts'
import { flushStdout, isReaderGone, openStdio } from '../../tunnel/stdio.ts'
import { type AskOptions, addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addNetworkOptions } from '../network-options.ts'
import { parseEdgeOrigin, parsePort } from '../options.ts'
import { readUsualArguments, type UsualOptions } from './usual-arguments.ts'

/** `postern client tls`: stdin and stdout as one connection of a service, usually started by ssh.
 *  The warm start (known edge, live certificate) loads nothing but Node's own modules and a few small files;
 *  whatever asks the edge for a certificate is imported when it is needed. */

export type ClientTlsOptions = UsualOptions

const LAST_BYTES_MS = 2_000

/** Resolves when the service has ended and stdout has everything; the process may end then, stdin open or not.
 *  @throws what the edge says, in words for the person */
export async function runClientTls(options: ClientTlsOptions): Promise<void> {
  useNetwork(options)
  const place = findService(options)
  const { edge, label } = place
  const certificate = readCertificate(edge, label) ?? (await fetchCertificate(place, options))
  try {
    await tunnel(place, certificate)
  } catch (error) {
    if (spoilsCertificate(error)) forgetCertificate(edge, label)
    await flushStdout(LAST_BYTES_MS)
    throw withOrigin(error, edge.origin)
  }
}

/** @throws EDGE_UNKNOWN · USAGE_INVALID when several edges fit */
export function findService(options: Pick<ClientTlsOptions, 'host' | 'port' | 'edge'>): ServicePlace {
  const wanted = { port: options.port, origin: options.edge }
  return findEdgeOfHost(stateFolder(), withoutDummy(options.host), wanted)
}

async function tunnel(place: ServicePlace, certificate: ClientCertificate): Promise<void> {
  const dialing = dialService(place, { ...certificate, caPem: place.edge.caPem })
  const stdio = openStdio() // while the network is busy
  const socket = await dialing
  const served = Promise.withResolvers<void>()
  const flow = joinService(stdio, socket, { host: place.host, onDownFlushed: () => served.resolve() })
  // the service's end is enough: who started us waits for it, and may keep our stdin open for ever
  const traffic = await Promise.race([served.promise, flow])
  if (traffic?.cut && !isReaderGone(traffic.cut)) throw traffic.cut.error
}

async function fetchCertificate(
  { edge, label }: ServicePlace,
  options: AskOptions,
): Promise<ClientCertificate> {
  const { issueClientCertificate } = await import('../../credentials/issue.ts')
  return issueClientCertificate(edge, label, loginPolicy(options))
}

/** @returns undefined for anything unusual */
export function readUsualTls(args: readonly string[]): ClientTlsOptions | undefined {
  return readUsualArguments(args, {}, (usual) => usual)
}

export function addClientTls(parent: Command): void {
  const command = parent
    .command('tls')
    .description('carry stdin and stdout to a service: as ProxyCommand of ssh, or in a pipe')
    .requiredOption('--host <host>', 'full name of the service, LABEL.DOMAIN (%h in an ssh config)')
  addEdgeOptions(command).action((options: ClientTlsOptions) => runClientTls(options))
  addExamples(command, [
    [
      'ssh to a service',
      "ssh -o 'ProxyCommand=postern client tls --host %h' user@crimson-thunder-8434.edge.example.com",
    ],
    ['a pipe', 'echo hello | postern client tls --host crimson-thunder-8434.edge.example.com'],
  ])
}

/** Which edge, and how to sign in there. */
export function addEdgeOptions(command: Command): Command {
  const port = "the edge's port, to tell edges with the same domain apart (never %p)"
  return addNetworkOptions(
    addAskOptions(
      command
        .option('--port <port>', port, parsePort)
        .option('--edge <url>', 'the edge, https://HOST[:PORT]', parseEdgeOrigin),
    ),
  )
}
