import { PosternError } from '@postern/shared/errors'
import { parseServiceLabel } from '@postern/shared/service-label'
import { Command, Option } from 'commander'
import type { Report } from '../connector/events.ts'
import {
  findSshServer,
  HEALTH_CHECK_MS,
  parseServiceName,
  refuseStrayCa,
  type ServiceSettings,
} from '../connector/service-settings.ts'
import { parseTarget, type Target } from '../connector/target.ts'
import type { LoginPolicy } from '../credentials/fresh.ts'
import { createJsonReport } from '../events.ts'
import { tell } from '../io.ts'
import { type NetworkOptions, useNetwork } from '../network/options.ts'
import type { ProgramParts } from '../program.ts'
import { findServiceManager } from '../service-manager/notify.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addCaOptions, type CaOptions } from './ca-options.ts'
import { addExamples } from './examples.ts'
import { addNetworkOptions } from './network-options.ts'
import {
  type AllowOptions,
  addAllowOptions,
  parseAllowList,
  parseEdgeOrigin,
  parseHealthCheck,
  parsePort,
} from './options.ts'
import { checkAllowList, startConnector } from './start-connector.ts'

/** `postern connect`: exposes a private port as a service, for as long as it runs. The service itself stays. */

interface ConnectOptions extends AllowOptions, AskOptions, CaOptions, NetworkOptions {
  name?: string
  file?: string
  target?: Target
  port?: number
  host: string
  type: string
  label?: string
  proxyProtocol?: 'v2'
  healthCheck: number
  replaceAllowList?: boolean
  edge?: string
  enrollTokenFile?: string
  /** Left out: the port tells. */
  ssh?: boolean
  json?: boolean
}

/** What both kinds of it run with. */
interface Run {
  policy: LoginPolicy
  report: Report
  signal: AbortSignal
}

async function runConnect(options: ConnectOptions, parts: ProgramParts): Promise<void> {
  const settings = options.file === undefined ? readSettings(options) : undefined
  useNetwork(options)
  const { reportToPeople } = await import('../connector/events.ts')
  const readerGone = new AbortController()
  const tellEverybody: Report = options.json
    ? createJsonReport((error) => readerGone.abort(error))
    : reportToPeople
  const signal = AbortSignal.any([parts.takeStopSignal(), readerGone.signal])
  const manager = findServiceManager()
  signal.addEventListener('abort', () => void manager.stopping())
  const report: Report = (event) => {
    if (event.event === 'ready') manager.ready(`${event.host} is ready`)
    tellEverybody(event)
  }
  const run: Run = { policy: loginPolicy(options), report, signal }
  if (settings) await connectOne(settings, run)
  else {
    const { connectAll } = await import('./connect-all.ts')
    await connectAll(options.file!, { ...run, onReload: parts.onReload })
  }
  await manager.stopping()
  if (!options.json) tell('the connector has left; the service stays, offline')
}

async function connectOne(settings: ServiceSettings, { policy, report, signal }: Run): Promise<void> {
  const begun = await startConnector(settings, policy, report)
  const { serveService } = await import('../connector/serve-service.ts')
  const { Changing } = await import('../connector/changing.ts')
  const leaving = new AbortController().signal
  await serveService(begun, new Changing(settings), {
    ...{ report, signal, leaving },
    checkService: checkAllowList(settings),
  })
}

/** @throws USAGE_INVALID */
function readSettings(options: ConnectOptions): ServiceSettings {
  const { name, label, type, edge, enrollTokenFile, caFile, caFingerprint, publicCa } = options
  if (name === undefined) {
    throw new PosternError('USAGE_INVALID', 'nothing says which service it is', {
      hint: 'name it, or a file of services: --name db --port 5432, or -f connector.yaml',
    })
  }
  if (label !== undefined) parseServiceLabel(label)
  if (type !== 'tls') {
    throw new PosternError('USAGE_INVALID', `there is no service type ${JSON.stringify(type)}`, {
      hint: 'the type is tls',
    })
  }
  refuseStrayCa(options)
  const target = readTarget(options)
  return {
    name: parseServiceName(name),
    ...{ label, target, edge, enrollTokenFile, caFile, caFingerprint, publicCa },
    allow: parseAllowList(options),
    replaceAllowList: options.replaceAllowList === true,
    proxyProtocol: options.proxyProtocol !== undefined,
    healthCheckMs: options.healthCheck,
    sshServer: findSshServer(target, options.ssh),
  }
}

/** @throws USAGE_INVALID nothing says where the service is */
function readTarget({ target, host, port }: ConnectOptions): Target {
  if (target) return target
  if (port !== undefined) return { host, port }
  throw new PosternError('USAGE_INVALID', 'nothing says where the private service is', {
    hint: 'name its port, or all of it: --port 5432, --target db.internal:5432, --target unix:/run/db.sock',
  })
}

/** Reads these words as the command would, and starts nothing.
 *  @throws USAGE_INVALID, or what commander throws */
export function checkConnectWords(words: readonly string[]): void {
  const program = new Command().exitOverride().configureOutput({ writeErr: () => undefined })
  describeConnect(program.command('connect')).action((options: ConnectOptions) => {
    if (options.file === undefined) readSettings(options)
  })
  program.parse(['connect', ...words], { from: 'user' })
}

export function addConnect(program: Command, parts: ProgramParts): void {
  const command = program.command('connect')
  describeConnect(command).action((options: ConnectOptions) => runConnect(options, parts))
  addConnectExamples(command)
}

function describeConnect(command: Command): Command {
  command
    .description('expose a private port as a service, for as long as this command runs')
    .option('--name <text>', 'name of the service; with its owner it stands for one service for ever')
    .addOption(
      new Option(
        '-f, --file <file>',
        'several services, read again when the file changes and at SIGHUP: see docs/connector.md',
      ).conflicts([
        ...['name', 'target', 'port', 'host', 'label', 'proxyProtocol', 'replaceAllowList', 'edge', 'ssh'],
        ...['healthCheck', 'enrollTokenFile', 'caFile', 'caFingerprint', 'publicCa'],
        ...['allowedEmailDomains', 'allowedEmailAddresses'],
        ...['allowAnyAuthenticated', 'allowed_email_domains', 'allowed_email_addresses'],
      ]),
    )
    .addOption(
      new Option(
        '--target <target>',
        'the private service, as this machine sees it: HOST:PORT, [IPV6]:PORT or unix:/PATH',
      )
        .argParser(parseTarget)
        .conflicts(['port', 'host']),
    )
    .option('--port <number>', 'in place of --target: its port', parsePort)
    .option('--host <host>', 'and the host of that port', 'localhost')
    .addOption(
      new Option(
        '--proxy-protocol <version>',
        'begin every connection to the service with a PROXY header: who comes, from where, signed by the edge',
      ).choices(['v2']),
    )
    .addOption(
      new Option(
        '--health-check <interval>',
        'look this often whether the service takes connections, and show it in service list; or off',
      )
        .argParser(parseHealthCheck)
        .default(HEALTH_CHECK_MS, '30s'),
    )
    .option('--type <type>', 'type of the service', 'tls')
    .option('--label <label>', 'first part of its host name (default: a generated one)')
  addAllowOptions(command)
    .option('--replace-allow-list', "overwrite the service's list with the one given here")
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .addOption(
      new Option(
        '--enroll-token-file <file>',
        'on a server without a person: become a connector with the token in this file; needed once, see postern service enroll-token',
      ).conflicts('replaceAllowList'),
    )
  addCaOptions(command)
    .option('--ssh', 'it is an ssh server: tell the edge its host keys (default: when the port is 22)')
    .option('--no-ssh', 'do not look for host keys')
    .option('--json', 'print one JSON object per line for everything that happens')
    .addOption(command.createOption('--cloudauth').hideHelp())
  return addNetworkOptions(addAskOptions(command))
}

function addConnectExamples(command: Command): void {
  addExamples(command, [
    [
      "a machine's ssh, for a company and one contractor",
      "postern connect --name 'ssh of build-7' --port 22 --allowed-email-domains mycorp.com --allowed-email-addresses contractor@example.com",
    ],
    ['again, with the list that it has', "postern connect --name 'ssh of build-7' --port 22"],
    [
      'on a server without a person',
      'postern connect --name db --port 5432 --edge https://edge.example.com --enroll-token-file /etc/postern-connect/db.token',
    ],
    ['for a program that starts it', 'postern connect --name db --target 10.0.0.5:5432 --json --batch'],
    [
      'for a service that reads who comes (haproxy: accept-proxy)',
      'postern connect --name web --port 8443 --proxy-protocol v2',
    ],
    [
      'several: below "services:" an entry for each, as in "- { name: db, target: 10.0.0.5:5432 }"',
      'postern connect -f connector.yaml',
    ],
    ['a socket of this machine', 'postern connect --name db --target unix:/run/postgresql/.s.PGSQL.5432'],
  ])
}
