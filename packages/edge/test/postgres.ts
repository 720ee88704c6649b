import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'

/** A PostgreSQL of the tests' own: a cluster in a temporary folder, gone with the process that started it. */

/** Where the server listens. */
export interface PostgresPlace {
  /** Folder of its Unix socket, where it believes any user. */
  folder: string
  /** Also on 127.0.0.1, where it asks for the password. */
  port: number
}

export interface PostgresCluster extends PostgresPlace, AsyncDisposable {
  stop(): Promise<void>
  /** After `stop`: the same data on the same port. */
  start(): Promise<void>
}

/** Role of the edge; owns its databases and nothing else. */
export const ROLE = 'postern'
/** Its password over TCP. Looked for in everything an edge prints. */
export const PASSWORD = 'canary pass/word%&@:'

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  max_connections: '200',
  shared_buffers: '16MB',
  // nothing here has to outlive the machine
  fsync: 'off',
  full_page_writes: 'off',
  // pg leaves a socket open on which it found no password to answer with
  authentication_timeout: '5s',
  // the edge has to ask for what it needs
  synchronous_commit: 'off',
  default_transaction_isolation: 'serializable',
}

/** @param settings of postgresql.conf, over the ones above */
export async function startPostgres(settings: Record<string, string> = {}): Promise<PostgresCluster> {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-pg-'))
  const owner = ownerOfServer()
  chownSync(folder, owner.uid, owner.gid)
  const data = path.join(folder, 'data')
  const initdb = [
    '--pgdata',
    data,
    '--username=postgres',
    '--encoding=UTF8',
    '--locale=C',
    '--no-sync',
    '--auth=trust',
  ]
  execFileSync(serverProgram('initdb'), initdb, {
    ...owner,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const access = 'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n'
  writeFileSync(path.join(data, 'pg_hba.conf'), access)
  const port = await freePort()
  const options = Object.entries({
    ...SETTINGS,
    ...settings,
    port: String(port),
    unix_socket_directories: folder,
  })
  let server: ChildProcess

  async function start(): Promise<void> {
    // ends with this process, whatever its end
    const drop =
      process.getuid?.() === 0 ? [`--reuid=${owner.uid}`, `--regid=${owner.gid}`, '--clear-groups'] : []
    const command = [
      serverProgram('postgres'),
      '-D',
      data,
      ...options.flatMap(([key, value]) => ['-c', `${key}=${value}`]),
    ]
    server = spawn('setpriv', [...drop, '--pdeathsig=QUIT', ...command], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    server.unref()
    await saysReady(server)
    const { stderr } = server
    stderr!.resume()
    ;(stderr as unknown as { unref(): void }).unref()
  }

  async function stop(): Promise<void> {
    if (server.exitCode !== null || server.signalCode !== null) return
    server.ref()
    const exited = once(server, 'exit')
    server.kill('SIGINT') // fast shutdown: ends the connections and writes everything down
    await exited
  }

  process.once('exit', () => {
    server.kill('SIGQUIT')
    // the server still writes when this process is gone already
    const clean = 'tail --pid="$1" -f /dev/null; rm -rf "$2"'
    const args = ['-c', clean, 'sh', String(server.pid), folder]
    spawn('sh', args, { cwd: '/', detached: true, stdio: 'ignore' }).unref()
  })
  await start()
  await asAdmin({ folder, port }, `create role ${ROLE} login password ${pg.escapeLiteral(PASSWORD)}`)
  return { folder, port, start, stop, [Symbol.asyncDispose]: stop }
}

let shared: Promise<PostgresPlace> | undefined

/** The cluster of this test run: `test/run.ts` starts one for all files, a file on its own has its own. */
export function sharedPostgres(): Promise<PostgresPlace> {
  const [folder, port] = (process.env.POSTERN_TEST_POSTGRES ?? '').split(' ')
  shared ??= folder && port ? Promise.resolve({ folder, port: Number(port) }) : startPostgres()
  return shared
}

/** What `sharedPostgres` of other processes reads. */
export function postgresEnv({ folder, port }: PostgresPlace): NodeJS.ProcessEnv {
  return { POSTERN_TEST_POSTGRES: `${folder} ${port}` }
}

/** A new empty database that sorts as people do, not as bytes.
 *  @returns its `postgres://` URL over the Unix socket */
export async function newDatabase(place?: PostgresPlace): Promise<string> {
  const { folder, port } = place ?? (await sharedPostgres())
  const name = `t${randomBytes(6).toString('hex')}`
  const locale = `locale_provider icu icu_locale 'en-US' template template0`
  await asAdmin({ folder, port }, `create database ${name} owner ${ROLE} ${locale}`)
  return `postgres://${ROLE}@localhost:${port}/${name}?host=${folder}`
}

/** The same database over TCP, with the password. */
export function overTcp(url: string, password = PASSWORD): string {
  const { port, pathname } = new URL(url)
  return `postgres://${ROLE}:${encodeURIComponent(password)}@127.0.0.1:${port}${pathname}`
}

/** Runs one statement as the server's administrator. */
export async function asAdmin(
  place: PostgresPlace,
  statement: string,
  database = 'postgres',
): Promise<unknown[]> {
  const client = new pg.Client({ host: place.folder, port: place.port, user: 'postgres', database })
  await client.connect()
  try {
    return (await client.query(statement)).rows
  } finally {
    await client.end()
  }
}

async function saysReady(server: ChildProcess): Promise<void> {
  let said = ''
  for await (const chunk of server.stderr!.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    said += chunk
    if (said.includes('database system is ready to accept connections')) return
  }
  throw new Error(`PostgreSQL did not start:\n${said}`)
}

/** PostgreSQL refuses to run as root; Debian's package brings a user for it. */
export function ownerOfServer(): { uid: number; gid: number } {
  if (process.getuid!() !== 0) return { uid: process.getuid!(), gid: process.getgid!() }
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}

/** Debian keeps the server's programs out of PATH, by version. */
function serverProgram(name: string): string {
  const versions = '/usr/lib/postgresql'
  const folders = existsSync(versions) ? readdirSync(versions).sort((a, b) => Number(b) - Number(a)) : []
  const found = folders.map((version) => path.join(versions, version, 'bin', name)).find(existsSync)
  return found ?? name
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  await once(probe, 'close')
  return port
}
