import { PosternError } from '@postern/shared/errors'
import { type AllowList, describeAllowList, sameAllowList } from '@postern/shared/identity'
import { parseServiceLabel } from '@postern/shared/service-label'
import { type Command, Option } from 'commander'
import { registerConnector } from '../connector/certificate.ts'
import type { Report } from '../connector/events.ts'
import {
  type ConnectorCertificate,
  clearSlot,
  type Slot,
  type StoredService,
  takeSlot,
  takeStoredSlot,
} from '../connector/slots.ts'
import { parseTarget, type Target, type TcpTarget } from '../connector/target.ts'
import { callSignedIn } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { edgeNow, type KnownEdge, pickEdge } from '../credentials/known-edge.ts'
import { readSession } from '../credentials/session.ts'
import { createJsonReport } from '../events.ts'
import { tell } from '../io.ts'
import { type NetworkOptions, useNetwork } from '../network/options.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addCaOptions, type CaOptions } from './ca-options.ts'
import { addExamples } from './examples.ts'
import { addNetworkOptions } from './network-options.ts'
import { type AllowOptions, addAllowOptions, parseAllowList, parseEdgeOrigin, parsePort } from './options.ts'

/** `postern connect`: exposes a private port as a service, for as long as it runs. The service itself stays. */

interface ConnectOptions extends AllowOptions, AskOptions, CaOptions, NetworkOptions {
  name: string
  target?: Target
  port?: number
  host: string
  type: string
  label?: string
  proxyProtocol?: 'v2'
  replaceAllowList?: boolean
  edge?: string
  enrollTokenFile?: string
  /** Left out: the port tells. */
  ssh?: boolean
  json?: boolean
}

const SSH_PORT = 22

/** What a connector starts with. */
interface Start {
  slot: Slot
  certificate: ConnectorCertificate
}

async function runConnect(options: ConnectOptions, takeStopSignal: () => AbortSignal): Promise<void> {
  const allow = parseAllowList(options)
  checkOptions(options)
  const target = readTarget(options)
  const sshServer = findSshServer(target, options.ssh)
  useNetwork(options)
  const { reportToPeople } = await import('../connector/events.ts')
  const readerGone = new AbortController()
  const report: Report = options.json ? createJsonReport((error) => readerGone.abort(error)) : reportToPeople
  const { edge, slot, certificate } = await begin(options, allow, report)
  using _slot = slot

  const { runConnector } = await import('../connector/connector.ts')
  const proxyProtocol = options.proxyProtocol !== undefined
  const signal = AbortSignal.any([takeStopSignal(), readerGone.signal])
  const checkService = (service: { name: string; allow: AllowList }) => {
    if (allow && !options.replaceAllowList) refuseDifference(service.name, service.allow, allow)
  }
  const leaving = new AbortController()
  const watched = sshServer
    ? import('../connector/host-keys.ts').then(({ watchHostKeys }) =>
        watchHostKeys({
          edge,
          slot,
          target: sshServer,
          report,
          signal: AbortSignal.any([signal, leaving.signal]),
        }),
      )
    : undefined
  try {
    await runConnector({ edge, slot, certificate, target, proxyProtocol, report, signal, checkService })
  } catch (error) {
    if (isRefused(error)) clearSlot(slot) // the next start registers a new connector
    throw error
  } finally {
    leaving.abort()
    await watched
  }
  if (!options.json) tell('the connector has left; the service stays, offline')
}

/** @throws USAGE_INVALID nothing says where the service is */
function readTarget({ target, host, port }: ConnectOptions): Target {
  if (target) return target
  if (port !== undefined) return { host, port }
  throw new PosternError('USAGE_INVALID', 'nothing says where the private service is', {
    hint: 'name its port, or all of it: --port 5432, --target db.internal:5432, --target unix:/run/db.sock',
  })
}

/** Other services are not asked: some count a caller that says nothing as an attack.
 *  @returns where host keys are looked for, if anywhere */
function findSshServer(target: Target, ssh: boolean | undefined): TcpTarget | undefined {
  if (!('path' in target)) return (ssh ?? target.port === SSH_PORT) ? target : undefined
  if (!ssh) return undefined
  throw new PosternError('USAGE_INVALID', '--ssh looks for host keys at a port, and the target is a socket', {
    hint: 'leave --ssh out, or name the port of the ssh server',
  })
}

async function begin(options: ConnectOptions, allow: AllowList | undefined, report: Report): Promise<Begun> {
  const { enrollTokenFile } = options
  if (enrollTokenFile !== undefined) return startEnrolled({ ...options, enrollTokenFile }, report)
  const edge = pickEdge(stateFolder(), options.edge)
  return { edge, ...(await start(edge, options, allow)) }
}

/** On a server without a person: the certificate of an earlier run, else one for the token. No session is looked for,
 *  and once there is a certificate the token's file is not even opened. */
async function startEnrolled(
  options: ConnectOptions & { enrollTokenFile: string },
  report: Report,
): Promise<Begun> {
  const { findEdgeToEnroll } = await import('./enroll-edge.ts')
  const edge = await findEdgeToEnroll(options)
  const stored = takeStoredSlot(edge, options)
  if (stored) return { edge, ...stored }
  const { enrollConnector } = await import('../connector/enroll.ts')
  const { enrollTokenFile: tokenFile } = options
  const { host, ...started } = await enrollConnector(edge, tokenFile, options)
  report({ event: 'enrolled', host, connectorId: started.certificate.connectorId, tokenFile })
  return { edge, ...started }
}

function checkOptions(options: ConnectOptions): void {
  const { type, label } = options
  if (label !== undefined) parseServiceLabel(label)
  if (options.enrollTokenFile === undefined && (options.caFile ?? options.caFingerprint)) {
    throw new PosternError('USAGE_INVALID', '--ca-file and --ca-fingerprint belong to --enroll-token-file', {
      hint: 'with a person the CA is named once: postern login --edge https://HOST --ca-file FILE',
    })
  }
  if (type === 'tls') return
  throw new PosternError('USAGE_INVALID', `there is no service type ${JSON.stringify(type)}`, {
    hint: 'the type is tls',
  })
}

interface Begun extends Start {
  edge: KnownEdge
}

/** With a session: claims the service and registers this process. Without one: goes on with the certificate that
 *  an earlier run left, so that a server comes back after a restart without anybody signing in. */
async function start(edge: KnownEdge, options: ConnectOptions, allow: AllowList | undefined): Promise<Start> {
  const stored = options.replaceAllowList ? undefined : takeStoredSlot(edge, options)
  if (!stored) return claim(edge, options, allow)
  if (!hasLiveSession(edge)) return stored
  try {
    return await claim(edge, { ...options, batch: true }, allow, stored)
  } catch (error) {
    if (canGoOnWithout(error)) return stored
    stored.slot[Symbol.dispose]()
    throw error
  }
}

async function claim(
  edge: KnownEdge,
  options: ConnectOptions,
  allow: AllowList | undefined,
  stored?: { slot: Slot; service: StoredService },
): Promise<Start> {
  const { name, label, replaceAllowList } = options
  return callSignedIn(edge, loginPolicy(options), async (api, session) => {
    const { service } = await api.claimService(session, {
      name,
      type: 'tls',
      ...(label === undefined ? {} : { label }),
      ...(allow === undefined ? {} : { allow: copyAllowList(allow) }),
      ...(replaceAllowList ? { replaceAllowList } : {}),
    })
    const kept = stored?.service.id === service.id ? stored.slot : undefined
    const slot = kept ?? takeSlot(edge, { id: service.id, name, label: service.label, host: service.host })
    const certificate = await registerConnector(api, session, service.id, slot)
    if (!kept) stored?.slot[Symbol.dispose]()
    return { slot, certificate }
  })
}

/** The edge says the same when a session claims the service.
 *  @throws ALLOW_LIST_DIFFERS: a restart must never undo a list that was tightened meanwhile */
function refuseDifference(name: string, has: AllowList, wanted: AllowList): void {
  if (sameAllowList(has, wanted)) return
  throw new PosternError(
    'ALLOW_LIST_DIFFERS',
    `"${name}" admits ${describeAllowList(has)}; asked for was ${describeAllowList(wanted)}`,
    { details: { current: has, wanted } },
  )
}

function hasLiveSession(edge: KnownEdge): boolean {
  const session = readSession(edge)
  return session !== undefined && session.expiresAt > edgeNow(edge)
}

function canGoOnWithout(error: unknown): boolean {
  return (
    error instanceof PosternError &&
    /^(SIGN_IN_REQUIRED|SESSION_ENDED|EDGE_UNREACHABLE|EDGE_STOPPING|PROXY_.*)$/.test(error.code)
  )
}

/** The edge will not take this certificate again. */
function isRefused(error: unknown): boolean {
  return error instanceof PosternError && /^(CONNECTOR|CERTIFICATE)_/.test(error.code)
}

function copyAllowList(list: AllowList) {
  return { ...list, emailDomains: [...list.emailDomains], emailAddresses: [...list.emailAddresses] }
}

export function addConnect(program: Command, takeStopSignal: () => AbortSignal): void {
  const command = program
    .command('connect')
    .description('expose a private port as a service, for as long as this command runs')
    .requiredOption('--name <text>', 'name of the service; with its owner it stands for one service for ever')
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
  addNetworkOptions(addAskOptions(command)).action((options: ConnectOptions) =>
    runConnect(options, takeStopSignal),
  )
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
    ['a socket of this machine', 'postern connect --name db --target unix:/run/postgresql/.s.PGSQL.5432'],
  ])
}
