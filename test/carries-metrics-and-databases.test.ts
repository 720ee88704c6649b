import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { Program } from '../demo/program.ts'
import { newDatabase, PASSWORD, ROLE, startPostgres } from '../packages/edge/test/postgres.ts'
import { startCarbon } from './support/carbon.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { startListener } from './support/listen.ts'
import { spawnPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { within } from './support/until.ts'

/** Debian's programs on both sides of `postern client listen`: graphite-carbon, PostgreSQL and Redis. */

const SLOW_MS = 300_000
const CONNECTIONS = 200

let edge: EdgeProcess
let operator: string

before(async () => {
  edge = await startEdge()
  operator = await makePerson(edge, 'operator@mycorp.com')
})
after(() => edge?.[Symbol.asyncDispose]())

async function hashOf(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}

describe('carbon', () => {
  /** As scripts do: connect, write a line, close at once. */
  async function sendMetric(file: string, name: string, value: number): Promise<void> {
    const line = `${name} ${value} ${Math.floor(Date.now() / 1_000)}\n`
    const script =
      'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); s.close()'
    const { code, stderr } = await new Program('python3', ['-c', script, file, line], { stdin: '' }).ended
    assert.equal(code, 0, stderr)
  }

  test('a metric of somebody admitted is in its whisper file, and one of somebody else is not', async () => {
    await using carbon = await startCarbon()
    await using service = await connectService({
      home: operator,
      port: carbon.port,
      name: 'carbon',
      allowedEmailAddresses: ['operator@mycorp.com'],
    })
    const folder = makeTempFolder('metrics')
    const [mine, theirs] = [path.join(folder, 'mine.sock'), path.join(folder, 'theirs.sock')]
    await using _listener = await startListener({ home: operator, host: service.host, local: `unix:${mine}` })
    await sendMetric(mine, 'build.seconds', 12)
    assert.equal(await carbon.value('build.seconds'), 12)

    const list = path.join(folder, 'listeners.yaml')
    writeFileSync(list, `listeners:\n- { host: ${service.host}, local: "unix:${theirs}" }\n`)
    const home = await makePerson(edge, 'other@mycorp.com')
    await using other = spawnPostern(['client', 'listen', '-f', list], { home })
    await other.matches(/refuses connections for now:\n.*\(ACCESS_DENIED\)/)
    await sendMetric(theirs, 'build.forged', 99)
    await other.matches(/(ACCESS_DENIED.*){2}/s)

    // over a port too, with a program that waits for the other end
    await using atPort = await startListener({ home: operator, host: service.host })
    const metric = `build.later 7 ${Math.floor(Date.now() / 1_000)}\n`
    const args = ['-N', '-w', '60', '127.0.0.1', String(atPort.port)]
    const sent = await within('nc is done', new Program('nc.openbsd', args, { stdin: metric }).ended)
    assert.equal(sent.code, 0, sent.stderr)
    assert.equal(await carbon.value('build.later'), 7)
    assert.equal(carbon.hasMetric('build.forged'), false)
  })
})

describe('PostgreSQL', () => {
  const rows = `select i, repeat(md5(i::text), 32) from generate_series(1, 200000) i`

  test('psql, 200 MB of COPY both ways, and two hundred connections at once', async () => {
    await using postgres = await startPostgres({ max_connections: String(CONNECTIONS + 20) })
    const database = new URL(await newDatabase(postgres)).pathname.slice(1)
    await using service = await connectService({ home: operator, port: postgres.port, name: 'database' })
    await using listener = await startListener({ home: operator, host: service.host })
    const env = { PATH: process.env.PATH, PGPASSWORD: PASSWORD, PGSSLMODE: 'disable', LANG: 'C.UTF-8' }
    const at = (port: number) => ['-h', '127.0.0.1', '-p', String(port), '-U', ROLE]
    const psql = (port: number, args: string[], collectStdout = true) => {
      const options = ['-X', ...at(port), '-d', database, '-v', 'ON_ERROR_STOP=1', ...args]
      return new Program('psql', options, { env, stdin: '', collectStdout })
    }
    const run = async (args: string[]) => {
      const { code, stdout, stderr } = await within('psql is done', psql(listener.port, args).ended, SLOW_MS)
      assert.equal(code, 0, stderr)
      return stdout
    }
    assert.equal(await run(['-Atc', 'select 6 * 7']), '42\n')

    const file = path.join(makeTempFolder('copy'), 'rows')
    await run(['-qc', `\\copy (${rows}) to '${file}'`])
    assert.ok(statSync(file).size > 200_000_000)
    await run([
      '-qc',
      'create unlogged table copied (number int, text text)',
      '-c',
      `\\copy copied from '${file}'`,
    ])
    const direct = psql(
      postgres.port,
      ['-qc', 'copy (select * from copied order by number) to stdout'],
      false,
    )
    const kept = await within('the rows as they are kept', hashOf(direct.child.stdout), SLOW_MS)
    assert.equal(kept, await hashOf(createReadStream(file)))
    await run(['-qc', 'drop table copied'])
    rmSync(file)

    // nobody leaves before the last one has come
    await run(['-qc', 'create sequence arrivals'])
    const script = path.join(makeTempFolder('crowd'), 'crowd.sql')
    const wait = `while (select last_value from arrivals) < ${CONNECTIONS} loop perform pg_sleep(0.2); end loop`
    writeFileSync(script, `select nextval('arrivals');\ndo $$ begin ${wait}; end $$;\n`)
    const crowd = [
      '-n',
      '-f',
      script,
      '-c',
      String(CONNECTIONS),
      '-j',
      '8',
      '-t',
      '1',
      ...at(listener.port),
      database,
    ]
    const bench = new Program('pgbench', crowd, { env, stdin: '' })
    const { code, stdout, stderr } = await within('all were there at once', bench.ended, SLOW_MS)
    assert.equal(code, 0, stderr)
    assert.match(stdout, new RegExp(`actually processed: ${CONNECTIONS}/${CONNECTIONS}\\n`))
  })
})

describe('Redis', () => {
  test('connections that stay answer thousands of requests, at a port and at a socket', async () => {
    const port = await findFreePort()
    const folder = makeTempFolder('redis')
    const settings = ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--dir', folder]
    await using redis = new Program('redis-server', settings, { stdin: '' })
    await redis.matches(/Ready to accept connections/)
    await using service = await connectService({ home: operator, port, name: 'cache' })
    const file = path.join(folder, 'cache.sock')
    const list = path.join(folder, 'listeners.yaml')
    const local = await findFreePort()
    const entries = [String(local), `"unix:${file}"`].map(
      (at) => `- { host: ${service.host}, local: ${at} }\n`,
    )
    writeFileSync(list, `listeners:\n${entries.join('')}`)
    await using listener = spawnPostern(['client', 'listen', '-f', list], { home: operator })
    await listener.matches(/( is at .*){2}/s)

    const blob = path.join(folder, 'blob')
    writeFileSync(blob, randomBytes(8 * 1024 * 1024).toString('base64'))
    const cli = (args: string[], stdin = '') => new Program('redis-cli', args, { stdin }).ended
    const stored = await cli(['-p', String(local), '-x', 'set', 'blob'], readFileSync(blob, 'utf8'))
    assert.equal(stored.stdout, 'OK\n', stored.stderr)
    const got = await cli(['-s', file, 'get', 'blob'])
    assert.equal(got.stdout, `${readFileSync(blob, 'utf8')}\n`)

    for (const at of [
      ['-h', '127.0.0.1', '-p', String(local)],
      ['-s', file],
    ]) {
      const load = ['-c', '50', '-n', '2000', '-t', 'set,get', '--csv']
      const { code, stdout, stderr } = await within(
        'the requests are answered',
        new Program('redis-benchmark', [...at, ...load], { stdin: '' }).ended,
        SLOW_MS,
      )
      assert.equal(code, 0, stderr)
      assert.match(stdout, /"SET",.*\n"GET",/)
    }
    const stats = await cli(['-p', String(port), 'info', 'commandstats'])
    for (const command of ['set', 'get']) {
      const [, calls] = new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats.stdout) ?? []
      assert.ok(Number(calls) >= 4_000, `${command}: ${calls}`)
    }
  })
})
