import { parseArgs } from 'node:util'
import { PosternError } from '@postern/shared/errors'
import { ALPN_FLOW } from '@postern/shared/protocol/frames'
import type { ServiceLabel } from '@postern/shared/service-label'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { splice, type Traffic } from '@postern/shared/stream/splice'
import type { Command } from 'commander'
import { isRefusedCertificate } from '../../api/network-error.ts'
import { type ClientCertificate, forgetCertificate, readCertificate } from '../../credentials/cache.ts'
import { stateFolder } from '../../credentials/home.ts'
import {
  edgePort,
  findEdgeOfHost,
  type KnownEdge,
  withOrigin,
  withoutDummy,
} from '../../credentials/known-edge.ts'
import { dialEdge } from '../../tunnel/dial-edge.ts'
import { flushStdout, isReaderGone, openStdio } from '../../tunnel/stdio.ts'
import { type AskOptions, addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { parseEdgeOrigin, parsePort } from '../options.ts'

/** `postern client tls`: stdin and stdout as one connection of a service, usually started by ssh.
 *  The warm start (known edge, live certificate) loads nothing but Node's own modules and a few small files;
 *  whatever asks the edge for a certificate is imported when it is needed. */

export interface ClientTlsOptions extends AskOptions {
  host: string
  /** The edge's, never ssh's `%p`. */
  port?: number | undefined
  /** Origin of the edge. */
  edge?: string | undefined
}

/** Without any answer, an end this soon after the handshake is how a server refuses a certificate in TLS 1.3. */
const REFUSAL_MS = 5_000
const LAST_BYTES_MS = 2_000

/** Resolves when the service has ended and stdout has everything; the process may end then, stdin open or not.
 *  @throws what the edge says, in words for the person */
export async function runClientTls(options: ClientTlsOptions): Promise<void> {
  const { edge, label, host } = findEdgeOfHost(stateFolder(), withoutDummy(options.host), {
    port: options.port,
    origin: options.edge,
  })
  const certificate = readCertificate(edge, label) ?? (await fetchCertificate(edge, label, options))
  try {
    await tunnel(edge, host, certificate)
  } catch (error) {
    if (spoilsCertificate(error)) forgetCertificate(edge, label)
    await flushStdout(LAST_BYTES_MS)
    throw withOrigin(error, edge.origin)
  }
}

async function tunnel(edge: KnownEdge, host: string, certificate: ClientCertificate): Promise<void> {
  const dialing = dialEdge({
    host: edge.domain,
    port: edgePort(edge),
    serverName: host,
    alpn: ALPN_FLOW,
    trust: { ...certificate, caPem: edge.caPem },
  })
  const stdio = openStdio() // while the network is busy
  const socket = await dialing
  const startedAt = performance.now()
  let answered = false
  const served = Promise.withResolvers<void>()
  const flow = splice(stdio, new FramedEnd(socket), {
    onControl: () => {
      answered = true
    },
    onDownFlushed: () => served.resolve(),
  })
  // the service's end is enough: who started us waits for it, and may keep our stdin open for ever
  const traffic = await Promise.race([served.promise, flow])
  if (!traffic?.cut || isReaderGone(traffic.cut)) return
  const early = !answered && traffic.bytesDown === 0 && performance.now() - startedAt < REFUSAL_MS
  throw explainCut(traffic.cut, host, early)
}

/** A refused client certificate is an alert, or a close without a word, after the handshake. */
function explainCut(cut: NonNullable<Traffic['cut']>, host: string, early: boolean): PosternError {
  const { error } = cut
  if (cut.by !== 'right' || error.code !== 'FLOW_CUT' || error.details?.saidByPeer) return error
  if (isRefusedCertificate(error.cause) || early) {
    return new PosternError('CERTIFICATE_REFUSED', `the edge refused the certificate for ${host}`, {
      cause: error,
    })
  }
  return new PosternError('FLOW_CUT', `the connection to ${host} was lost in the middle of the flow`, {
    cause: error,
    ...(error.cause === undefined ? { hint: error.hint } : {}),
  })
}

function spoilsCertificate(error: unknown): boolean {
  return error instanceof PosternError && /^(CERTIFICATE_|ACCESS_DENIED|FLOW_REVOKED)/.test(error.code)
}

async function fetchCertificate(
  edge: KnownEdge,
  label: ServiceLabel,
  options: AskOptions,
): Promise<ClientCertificate> {
  const { issueClientCertificate } = await import('../../credentials/issue.ts')
  return issueClientCertificate(edge, label, loginPolicy(options))
}

/** Reads the usual options without commander, which costs as much time to load as the whole rest.
 *  @returns undefined for anything unusual: commander then says what is wrong, or prints the help */
export function readUsualArguments(args: readonly string[]): ClientTlsOptions | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        host: { type: 'string' },
        port: { type: 'string' },
        edge: { type: 'string' },
        browser: { type: 'string' },
        'no-browser': { type: 'boolean' },
        batch: { type: 'boolean' },
        interactive: { type: 'boolean' },
      },
    })
    if (!values.host) return undefined
    return {
      ...values,
      host: values.host,
      port: values.port === undefined ? undefined : parsePort(values.port),
      edge: values.edge === undefined ? undefined : parseEdgeOrigin(values.edge),
      browser: values['no-browser'] ? false : values.browser,
    }
  } catch {
    return undefined
  }
}

export function addClientTls(parent: Command): void {
  const command = parent
    .command('tls')
    .description('carry stdin and stdout to a service: as ProxyCommand of ssh, or in a pipe')
    .requiredOption('--host <host>', 'full name of the service, LABEL.DOMAIN (%h in an ssh config)')
    .option(
      '--port <port>',
      "the edge's port, to tell edges with the same domain apart (never %p)",
      parsePort,
    )
    .option('--edge <url>', 'the edge, https://HOST[:PORT]', parseEdgeOrigin)
  addAskOptions(command).action((options: ClientTlsOptions) => runClientTls(options))
  addExamples(command, [
    [
      'ssh to a service',
      "ssh -o 'ProxyCommand=postern client tls --host %h' user@crimson-thunder-8434.edge.example.com",
    ],
    ['a pipe', 'echo hello | postern client tls --host crimson-thunder-8434.edge.example.com'],
  ])
}
