import type { Program } from '../../demo/program.ts'
import { type EventLine, readEvents, waitForEvent } from './event-lines.ts'
import { spawnPostern } from './postern.ts'

export interface ConnectOptions {
  /** State folder of a signed-in operator. */
  home: string
  /** The private service: its port, or all of it. */
  port?: number
  target?: string
  /** Name of the service, `db` by default. */
  name?: string
  /** Who may enter. Left out: mycorp.com, unless `args` names somebody. An empty list: no option at all. */
  allowedEmailDomains?: readonly string[]
  allowedEmailAddresses?: readonly string[]
  /** More options of `postern connect`. */
  args?: readonly string[]
  env?: NodeJS.ProcessEnv
  /** Another build of `postern`. */
  program?: string
}

export interface ConnectedService extends AsyncDisposable {
  /** `<label>.<domain>` */
  host: string
  label: string
  /** All events so far. */
  events(): EventLine[]
  /** Waits for an event, also one that has been. */
  event(name: string, matches?: (event: EventLine) => boolean, timeoutMs?: number): Promise<EventLine>
  pid: number
  program: Program
  logs(): string
  stop(signal?: NodeJS.Signals): Promise<number | null>
  kill9(): Promise<void>
}

/** Starts `postern connect --json` and waits for its `ready`. */
export async function connectService(
  options: ConnectOptions,
  readyTimeoutMs?: number,
): Promise<ConnectedService> {
  const program = spawnConnect(options)
  const event: ConnectedService['event'] = (name, matches, timeoutMs) =>
    waitForEvent(program, name, matches, timeoutMs)
  const ready = await event('ready', undefined, readyTimeoutMs).catch(async (error) => {
    await program.stop('SIGKILL')
    throw error
  })
  const host = String(ready.host)
  return {
    host,
    label: host.slice(0, host.indexOf('.')),
    events: () => readEvents(program),
    event,
    pid: program.pid,
    program,
    logs: () => program.logs(),
    stop: async (signal = 'SIGTERM') => (await program.stop(signal)).code,
    kill9: async () => void (await program.stop('SIGKILL')),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

/** Starts `postern connect --json` without waiting: for the ones that must fail. */
export function spawnConnect(options: ConnectOptions): Program {
  const { home, env, program, port, target, name = 'db', args = [] } = options
  const list = (option: string, values: readonly string[] | undefined) =>
    values && values.length > 0 ? [option, values.join(',')] : []
  const named = options.allowedEmailDomains || options.allowedEmailAddresses
  const domains = options.allowedEmailDomains ?? (named || args.some(namesWho) ? [] : ['mycorp.com'])
  const words = [
    ...['connect', '--json', '--name', name],
    ...(target === undefined ? ['--port', String(port)] : ['--target', target]),
    // the connections that a service sees are those of its flows
    ...(args.includes('--health-check') ? [] : ['--health-check', 'off']),
    ...list('--allowed-email-domains', domains),
    ...list('--allowed-email-addresses', options.allowedEmailAddresses),
    ...args,
  ]
  return spawnPostern(words, { home, ...(env ? { env } : {}), ...(program ? { program } : {}) })
}

function namesWho(argument: string): boolean {
  return /^--allow/.test(argument)
}
