import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { quoteForShell, writeDevBrowser } from './dev-login.ts'
import { type EdgeProgram, startEdgeProgram } from './edge-program.ts'
import { isSshdInstalled, startPrivateSshd, writeSshConfig } from './private-sshd.ts'
import { Program, type ProgramResult } from './program.ts'
import { startTextService, type TextService } from './text-service.ts'

/** Everything the demo starts, on loopback: an edge, private services, their connectors, and people. */

export const DOMAIN = 'edge.localhost'
export const OPERATOR = 'operator@mycorp.com'
export const ADMITTED_DOMAIN = 'mycorp.com'

const POSTERN = fileURLToPath(new URL('../packages/cli/bin/postern.js', import.meta.url))

export interface DemoTown extends AsyncDisposable {
  folder: string
  /** Runs the built command line as the operator, unless POSTERN_HOME says otherwise. */
  launcher: string
  origin: string
  port: number
  caFile: string
  /** State folder of the operator. */
  operatorHome: string
  text: { host: string; service: TextService }
  /** undefined where no sshd is installed. */
  ssh: { host: string; configFile: string } | undefined
  /** Everything that must run for the demo to run. */
  programs: Program[]
  /** Calls back for every event of a connector, with the name of its service. */
  onEvent(listener: (service: string, event: Record<string, unknown>) => void): void
}

export async function startDemoTown(folder: string): Promise<DemoTown> {
  await using starting = new AsyncDisposableStack()
  const edge = starting.adopt(await startEdge(folder), ({ program }) => program.stop().then(() => {}))
  const operatorHome = path.join(folder, 'operator')
  const launcher = writeLauncher(path.join(folder, 'postern'), operatorHome)
  const caFile = path.join(folder, 'edge', 'ca', 'edge-ca.pem')
  const login = await signIn({ launcher, folder, origin: edge.origin, caFile }, 'operator', OPERATOR)
  if (login.code !== 0) throw new Error(`the operator could not sign in\n${login.stderr}`)

  const service = starting.use(await startTextService())
  const textConnector = starting.use(expose(launcher, 'text', service.port))
  const programs = [edge.program, textConnector]
  const listeners: ((service: string, event: Record<string, unknown>) => void)[] = []
  const listen = (name: string, connector: Program) =>
    readEvents(connector, (event) => {
      for (const listener of listeners) listener(name, event)
    })
  listen('text', textConnector)

  let ssh: DemoTown['ssh']
  if (isSshdInstalled()) {
    const sshd = starting.use(await startPrivateSshd(path.join(folder, 'sshd')))
    const sshConnector = starting.use(expose(launcher, 'ssh', sshd.port))
    listen('ssh', sshConnector)
    programs.push(sshd.program, sshConnector)
    const host = await waitForHost(sshConnector)
    const configFile = path.join(folder, 'ssh_config')
    const proxyCommand = `${quoteForShell(launcher.replaceAll('%', '%%'))} client tls --host %h`
    writeSshConfig({ file: configFile, host, sshd, proxyCommand })
    ssh = { host, configFile }
  }

  const host = await waitForHost(textConnector)
  const running = starting.move()
  return {
    folder,
    launcher,
    origin: edge.origin,
    port: edge.port,
    caFile,
    operatorHome,
    text: { host, service },
    ssh,
    programs,
    onEvent: (listener) => void listeners.push(listener),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  }
}

function startEdge(folder: string): Promise<EdgeProgram> {
  const configFile = path.join(folder, 'edge.yaml')
  writeFileSync(
    configFile,
    `# The demo's edge: on this machine only, and it believes any address.
domain: ${DOMAIN}
listen: 127.0.0.1:0
data_dir: ${JSON.stringify(path.join(folder, 'edge'))}
identity:
  dev: true
operators:
  email_addresses: [${OPERATOR}]
admins:
  email_addresses: [${OPERATOR}]
`,
    { mode: 0o600 },
  )
  return startEdgeProgram(configFile, { args: ['--drain', '0s'] })
}

/** The machine's own Node may be too old, so the launcher names the one that runs the demo. */
function writeLauncher(file: string, operatorHome: string): string {
  writeFileSync(
    file,
    `#!/bin/sh
# The built postern. Whoever sets no POSTERN_HOME is ${OPERATOR}.
: "\${POSTERN_HOME:=${operatorHome.replaceAll(/[\\"$`]/g, '\\$&')}}"
export POSTERN_HOME
exec ${quoteForShell(process.execPath)} ${quoteForShell(POSTERN)} "$@"
`,
  )
  chmodSync(file, 0o755)
  return file
}

type Place = Pick<DemoTown, 'launcher' | 'folder' | 'origin' | 'caFile'>

/** Signs somebody in at the dev page, without a screen. Their state lies in a folder of that name. */
export async function signIn(place: Place, name: string, email: string): Promise<ProgramResult> {
  const { launcher, folder, origin, caFile } = place
  const home = path.join(folder, name)
  mkdirSync(home, { recursive: true, mode: 0o700 })
  const browser = await writeDevBrowser(path.join(folder, `browser-of-${name}`), { email, caFile })
  const args = ['login', '--edge', origin, '--ca-file', caFile, '--browser', quoteForShell(browser)]
  return new Program(launcher, args, { stdin: '', env: envOf(place, name) }).ended
}

/** The environment of one of the demo's people. */
export function envOf(place: Pick<DemoTown, 'folder'>, name: string): NodeJS.ProcessEnv {
  return { ...process.env, POSTERN_HOME: path.join(place.folder, name), BROWSER: '/bin/false' }
}

function expose(launcher: string, name: string, port: number): Program {
  const who = ['--allowed-email-domains', ADMITTED_DOMAIN]
  const args = ['connect', '--json', '--name', name, '--port', String(port), ...who]
  const { POSTERN_HOME: _, ...env } = process.env
  return new Program(launcher, args, { stdin: '', env })
}

async function waitForHost(connector: Program): Promise<string> {
  const [line] = await connector.matches(/^\{.*"event":"ready".*\}$/m)
  return (JSON.parse(line) as { host: string }).host
}

function readEvents(connector: Program, tell: (event: Record<string, unknown>) => void): void {
  let rest = ''
  connector.child.stdout.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString('utf8')).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) tell(JSON.parse(line) as Record<string, unknown>)
  })
}
