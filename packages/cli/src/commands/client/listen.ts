import { isIP } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { type ClientCertificate, forgetCertificate, readCertificate } from '../../credentials/cache.ts'
import type { LoginPolicy } from '../../credentials/fresh.ts'
import { withOrigin } from '../../credentials/known-edge.ts'
import { LiveCertificate } from '../../credentials/live-certificate.ts'
import { createJsonReport } from '../../events.ts'
import type { Trust } from '../../tunnel/dial-edge.ts'
import { openListener, serveListener } from '../../tunnel/listener.ts'
import { type Report, reportToPeople } from '../../tunnel/listener-events.ts'
import { type Endpoint, isLoopback } from '../../tunnel/local-user.ts'
import type { ServicePlace } from '../../tunnel/service-flow.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addEdgeOptions, type ClientTlsOptions, findService } from './tls.ts'

/** `postern client listen`: a service at a port of this machine, for programs that know TCP and nothing else. */

interface ListenOptions extends ClientTlsOptions {
  local: Endpoint
  unsafeListenAll?: boolean
  unsafeAnyLocalUser?: boolean
  json?: boolean
}

async function runListen(options: ListenOptions, takeStopSignal: () => AbortSignal): Promise<void> {
  refusePublicAddress(options)
  const place = findService(options)
  const server = await openListener(options.local)
  const readerGone = new AbortController()
  const signal = AbortSignal.any([takeStopSignal(), readerGone.signal])
  const report: Report = options.json ? createJsonReport((error) => readerGone.abort(error)) : reportToPeople
  const policy = loginPolicy(options)
  const certificate = new LiveCertificate(createSource(place, policy, report), { ...policy, report })
  const { unsafeAnyLocalUser = false } = options
  try {
    await serveListener(server, { place, certificate, unsafeAnyLocalUser, report, signal })
  } catch (error) {
    throw withOrigin(error, place.edge.origin)
  }
}

/** What is stored is read each time: another process may have renewed it, or signed in as somebody else. */
function createSource({ edge, label }: ServicePlace, policy: LoginPolicy, report: Report) {
  let current: (ClientCertificate & Trust) | undefined
  // one object for each certificate: connections share what TLS makes of it
  const keep = (stored: ClientCertificate) => {
    if (stored.certificatePem !== current?.certificatePem) current = { ...stored, caPem: edge.caPem }
    return current!
  }
  return {
    read() {
      const stored = readCertificate(edge, label)
      return stored && keep(stored)
    },
    async fetch(mayAsk: boolean) {
      const { issueClientCertificate } = await import('../../credentials/issue.ts')
      const issued = await issueClientCertificate(edge, label, { ...policy, mayAsk })
      report({ event: 'renewed', notAfter: issued.notAfter })
      return keep(issued)
    },
    forget: () => forgetCertificate(edge, label),
  }
}

/** `PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`; port 0 is any free one. */
export function parseLocal(text: string): Endpoint {
  const [, v6, v4OrName, digits] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d{1,5})$/.exec(text) ?? []
  const name = v6 ?? v4OrName ?? 'localhost'
  const address = name === 'localhost' ? '127.0.0.1' : name
  const port = Number(digits)
  const isAddress = isIP(address) === (v6 === undefined ? 4 : 6)
  if (digits !== undefined && port <= 65_535 && isAddress) return { address, port }
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a local address`, {
    hint: 'write a port, or an address of this machine with a port: 5432, 127.0.0.1:5432 or [::1]:5432; port 0 takes any free one',
  })
}

function refusePublicAddress({ local, unsafeListenAll }: ListenOptions): void {
  if (unsafeListenAll || isLoopback(local.address)) return
  throw new PosternError('USAGE_INVALID', `${local.address} can be reached by other machines`, {
    hint: 'listen on 127.0.0.1 or [::1]; --unsafe-listen-all serves whoever reaches the port, in your name',
  })
}

export function addClientListen(parent: Command, takeStopSignal: () => AbortSignal): void {
  const command = parent
    .command('listen')
    .description('offer a service at a port of this machine, to programs that know TCP and nothing else')
    .requiredOption('--host <host>', 'full name of the service, LABEL.DOMAIN')
    .requiredOption(
      '--local <[address:]port>',
      'where to listen; 127.0.0.1 unless an address is given, port 0 takes any free one',
      parseLocal,
    )
    .option('--unsafe-any-local-user', 'serve programs of every user of this machine, not only your own')
    .option('--unsafe-listen-all', 'allow an address that other machines reach: they enter in your name')
    .option('--json', 'print one JSON object per line for everything that happens')
  addEdgeOptions(command).action((options: ListenOptions) => runListen(options, takeStopSignal))
  const host = 'crimson-thunder-8434.edge.example.com'
  addExamples(command, [
    ['a database at port 5432 of this machine', `postern client listen --host ${host} --local 5432`],
    ['and then', 'psql -h 127.0.0.1 -p 5432'],
    [
      'any free port, told on stdout, for a program that starts it',
      `postern client listen --host ${host} --local 0 --json --batch`,
    ],
  ])
}
