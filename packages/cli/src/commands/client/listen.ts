import type { Command } from 'commander'
import { type ClientCertificate, forgetCertificate, readCertificate } from '../../credentials/cache.ts'
import type { LoginPolicy } from '../../credentials/fresh.ts'
import { withOrigin } from '../../credentials/known-edge.ts'
import { LiveCertificate } from '../../credentials/live-certificate.ts'
import { createJsonReport } from '../../events.ts'
import type { Trust } from '../../tunnel/dial-edge.ts'
import { serveListener } from '../../tunnel/listener.ts'
import { type Report, reportToPeople } from '../../tunnel/listener-events.ts'
import { type LocalPlace, parseLocal, refusePublicAddress } from '../../tunnel/local-place.ts'
import { openListener } from '../../tunnel/open-listener.ts'
import type { ServicePlace } from '../../tunnel/service-flow.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addEdgeOptions, type ClientTlsOptions, findService } from './tls.ts'

/** `postern client listen`: a service at a port of this machine, for programs that know TCP and nothing else. */

interface ListenOptions extends ClientTlsOptions {
  local: LocalPlace
  unsafeListenAll?: boolean
  unsafeAnyLocalUser?: boolean
  json?: boolean
}

async function runListen(options: ListenOptions, takeStopSignal: () => AbortSignal): Promise<void> {
  if (!options.unsafeListenAll) refusePublicAddress(options.local, '--unsafe-listen-all')
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

export function addClientListen(parent: Command, takeStopSignal: () => AbortSignal): void {
  const command = parent
    .command('listen')
    .description('offer a service at a port or socket of this machine, to programs that know nothing else')
    .requiredOption('--host <host>', 'full name of the service, LABEL.DOMAIN')
    .requiredOption(
      '--local <place>',
      'where to listen: [ADDRESS:]PORT, on 127.0.0.1 unless an address is given, port 0 takes any free one; or unix:PATH',
      (text: string) => parseLocal(text),
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
      'a socket that only you can open, for programs that write and leave at once',
      `postern client listen --host ${host} --local unix:$XDG_RUNTIME_DIR/carbon.sock`,
    ],
    ['and then', 'echo "build.seconds 12 $(date +%s)" | socat - UNIX-CONNECT:$XDG_RUNTIME_DIR/carbon.sock'],
    [
      'any free port, told on stdout, for a program that starts it',
      `postern client listen --host ${host} --local 0 --json --batch`,
    ],
  ])
}
