import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { withOrigin } from '../../credentials/known-edge.ts'
import { createJsonReport } from '../../events.ts'
import { useNetwork } from '../../network/options.ts'
import type { ProgramParts } from '../../program.ts'
import { findServiceManager, type ServiceManager } from '../../service-manager/notify.ts'
import { serveListener } from '../../tunnel/listener.ts'
import { type Report, reportToPeople } from '../../tunnel/listener-events.ts'
import { formatLocal, type LocalPlace, parseLocal, refusePublicAddress } from '../../tunnel/local-place.ts'
import { openListener } from '../../tunnel/open-listener.ts'
import { ServiceCertificates } from '../../tunnel/service-certificates.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addEdgeOptions, type ClientTlsOptions, findService } from './tls.ts'

/** `postern client listen`: a service at a port of this machine, for programs that know TCP and nothing else. */

interface ListenOptions extends Omit<ClientTlsOptions, 'host'> {
  host?: string
  local?: LocalPlace
  file?: string
  unsafeListenAll?: boolean
  unsafeAnyLocalUser?: boolean
  json?: boolean
}

/** What both kinds of it run with. */
export interface Run {
  certificates: ServiceCertificates
  report: Report
  signal: AbortSignal
  manager: ServiceManager
  /** Hears each SIGHUP. */
  onReload: ProgramParts['onReload']
}

type ListenParts = Pick<ProgramParts, 'takeStopSignal' | 'onReload'>

async function runListen(options: ListenOptions, { takeStopSignal, onReload }: ListenParts): Promise<void> {
  useNetwork(options)
  const readerGone = new AbortController()
  const signal = AbortSignal.any([takeStopSignal(), readerGone.signal])
  const report: Report = options.json ? createJsonReport((error) => readerGone.abort(error)) : reportToPeople
  const certificates = new ServiceCertificates(loginPolicy(options), report)
  const run: Run = { certificates, report, signal, manager: findServiceManager(), onReload }
  if (options.file === undefined) await listenAtOne(options, run)
  else {
    const { listenAtAll } = await import('./listen-file.ts')
    await listenAtAll(options.file, run)
  }
}

async function listenAtOne(options: ListenOptions, run: Run): Promise<void> {
  const { certificates, signal, manager } = run
  const { host, local, unsafeAnyLocalUser = false } = options
  if (host === undefined || local === undefined) {
    throw new PosternError('USAGE_INVALID', 'nothing says which service is to be where', {
      hint: 'name both, or a file that does: --host HOST --local 5432, or -f listeners.yaml',
    })
  }
  if (!options.unsafeListenAll) refusePublicAddress(local, '--unsafe-listen-all')
  const place = findService({ ...options, host })
  const server = await openListener(local)
  const certificate = certificates.of(place)
  const report: Report = (event) => {
    if (event.event === 'ready') manager.ready(`${place.host} is at ${formatLocal(event)}`)
    run.report(event)
  }
  signal.addEventListener('abort', () => void manager.stopping())
  try {
    await serveListener(server, { place, certificate, unsafeAnyLocalUser, report, signal })
    await manager.stopping()
  } catch (error) {
    throw withOrigin(error, place.edge.origin)
  }
}

export function addClientListen(parent: Command, parts: ListenParts): void {
  const command = parent
    .command('listen')
    .description('offer a service at a port or socket of this machine, to programs that know nothing else')
    .option('--host <host>', 'full name of the service, LABEL.DOMAIN')
    .option(
      '--local <place>',
      'where to listen: [ADDRESS:]PORT, on 127.0.0.1 unless an address is given, port 0 takes any free one; or unix:PATH',
      (text: string) => parseLocal(text),
    )
    .addOption(
      new Option(
        '-f, --file <file>',
        'several services, each at a place of its own; read again when it changes',
      ).conflicts(['host', 'local', 'port', 'edge', 'unsafeAnyLocalUser', 'unsafeListenAll']),
    )
    .option('--unsafe-any-local-user', 'serve programs of every user of this machine, not only your own')
    .option('--unsafe-listen-all', 'allow an address that other machines reach: they enter in your name')
    .option('--json', 'print one JSON object per line for everything that happens')
  addEdgeOptions(command).action((options: ListenOptions) => runListen(options, parts))
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
    [
      'several: below "listeners:" an entry for each, as in "- { host: HOST, local: 5432 }"',
      'postern client listen -f listeners.yaml',
    ],
  ])
}
