import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { startEdgeProgram } from '../../demo/edge-program.ts'
import { findFreePort } from '../../demo/free-port.ts'
import type { Program } from '../../demo/program.ts'
import { newDatabase } from '../../packages/edge/test/postgres.ts'
import { makeTempFolder } from './temp-folder.ts'

const DOMAIN = 'edge.localhost'

export interface EdgeOptions {
  /** Keys of the edge's YAML file, over the ones below. A nested key replaces the whole default of its parent. */
  config?: Record<string, unknown>
  /** `dev`: the page that believes any address. Or the provider people sign in at. */
  identity?: 'dev' | UpstreamIdentity
  /** An earlier edge's folder, to start it again with the same keys and store. */
  dataDir?: string
  /** The port of that earlier edge, or one that something has to know before. A free one by default. */
  port?: number
  /** Its port is needed again after it has ended: nothing else of this machine gets it meanwhile. */
  keepsPort?: boolean
  /** More options of `postern-edge serve`. */
  args?: readonly string[]
  env?: NodeJS.ProcessEnv
  /** Another build of `postern-edge`. */
  program?: string
}

export interface UpstreamIdentity {
  issuer: string
  clientId: string
  clientSecret: string
  /** More keys of `identity`: `groups_claim`, `email_domains`, `required_claims`, … */
  keys?: Record<string, unknown>
}

/** A running `postern-edge serve` on 127.0.0.1. */
export interface EdgeProcess extends AsyncDisposable {
  /** `https://edge.localhost:PORT` */
  origin: string
  port: number
  domain: string
  /** CA of the edge's own certificate, PEM. */
  caFile: string
  dataDir: string
  configFile: string
  pid: number
  program: Program
  logs(): string
  stop(signal?: NodeJS.Signals): Promise<void>
  kill9(): Promise<void>
}

/** Starts the built edge and waits until it is ready. Everybody of mycorp.com may expose services, and
 *  operator@mycorp.com sees everything, unless `config` says otherwise. */
export async function startEdge(options: EdgeOptions = {}): Promise<EdgeProcess> {
  const dataDir = options.dataDir ?? makeTempFolder('edge')
  const configFile = path.join(dataDir, 'edge.yaml')
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  // YAML takes JSON as it is
  const listenPort = options.port ?? (options.keepsPort ? await findFreePort() : 0)
  const identity = options.identity ?? 'dev'
  const config = {
    ...defaultConfig(dataDir, listenPort, identity),
    ...(await storeConfig(dataDir)),
    ...options.config,
  }
  writeFileSync(configFile, JSON.stringify(config, null, 2), { mode: 0o600 })

  const { program, origin, port } = await startEdgeProgram(configFile, {
    ...(options.args ? { args: options.args } : {}),
    ...(options.env ? { env: options.env } : {}),
    ...(options.program ? { program: options.program } : {}),
  })
  return {
    origin,
    port,
    domain: DOMAIN,
    caFile: path.join(dataDir, 'ca', 'edge-ca.pem'),
    dataDir,
    configFile,
    pid: program.pid,
    program,
    logs: () => program.logs(),
    stop: async (signal = 'SIGTERM') => void (await program.stop(signal)),
    kill9: async () => void (await program.stop('SIGKILL')),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

const databases = new Map<string, Promise<string>>()

/** With `POSTERN_TEST_STORE=postgres` each edge has a database of its own there, also when it is started again. */
async function storeConfig(dataDir: string): Promise<{ store?: string }> {
  if (process.env.POSTERN_TEST_STORE !== 'postgres') return {}
  const database = databases.get(dataDir) ?? newDatabase()
  databases.set(dataDir, database)
  return { store: await database }
}

function defaultConfig(dataDir: string, port: number, identity: 'dev' | UpstreamIdentity) {
  return {
    domain: DOMAIN,
    listen: `127.0.0.1:${port}`,
    data_dir: dataDir,
    identity: identity === 'dev' ? { dev: true } : upstreamConfig(dataDir, identity),
    operators: { email_domains: ['mycorp.com'] },
    admins: { email_addresses: ['operator@mycorp.com'] },
  }
}

function upstreamConfig(dataDir: string, identity: UpstreamIdentity): Record<string, unknown> {
  const secretFile = path.join(dataDir, 'upstream-client-secret')
  writeFileSync(secretFile, identity.clientSecret, { mode: 0o600 })
  return {
    issuer: identity.issuer,
    client_id: identity.clientId,
    client_secret_file: secretFile,
    ...identity.keys,
  }
}
