import assert from 'node:assert/strict'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { readVersion } from '../build.ts'
import { findFreePort } from '../demo/free-port.ts'
import { type ConnectedService, connectService, spawnConnect } from './support/connect-service.ts'
import { makePerson, tryLogIn } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { waitForEvent } from './support/event-lines.ts'
import { buildNeighbour, type NeighbourBuild, type SourceChange } from './support/neighbour-build.ts'
import { callApi, signInByHand } from './support/oauth-peer.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { within } from './support/until.ts'

/** docs/protocol.md, Versions: an edge and a `postern` one minor version apart work together. The other versions
 *  here are built from the sources of today, and say what such a version may say: more, or less. */

const LATER = `later: { than: ['this version'], and: null }`

/** Unknown frames in front of known ones, and unknown members in them. */
const NEWER_FRAMES: SourceChange[] = [
  {
    file: 'shared/src/protocol/frames.ts',
    find: 'Buffer.from(JSON.stringify(body)',
    replace: `Buffer.from(JSON.stringify({ ...body, ${LATER} })`,
  },
  {
    file: 'shared/src/protocol/frames.ts',
    find: 'return Buffer.concat([header, payload])',
    replace: 'return Buffer.concat([Buffer.of(0x7e, 0, 0, 3, 1, 2, 3), header, payload])',
  },
  {
    file: 'shared/src/protocol/frames.ts',
    find: 'Buffer.from([FRAME.end, 0, 0, 0])',
    replace: 'Buffer.from([0x7f, 0, 0, 0, 0x7e, 0, 0, 1, FRAME.end, FRAME.end, 0, 0, 0])',
  },
  {
    file: 'shared/src/protocol/connector-control.ts',
    find: 'CONTROL_VERSION = 1',
    replace: 'CONTROL_VERSION = 2',
  },
]

/** Rewrites each JSON answer of the API. */
const rewriteAnswers = (rewrite: string): SourceChange => ({
  file: 'edge/src/http/api.ts',
  find: 'app.use(guardRequest(parts))',
  replace: `app.use(async (c, next) => {
    await next()
    if (!c.res.headers.get('content-type')?.includes('json')) return
    const rewrite = (value) => {
      if (Array.isArray(value)) return value.map(rewrite)
      if (typeof value !== 'object' || value === null) return value
      const members = Object.fromEntries(Object.entries(value).map(([name, member]) => [name, rewrite(member)]))
      ${rewrite}
      return members
    }
    const { status, headers } = c.res
    c.res = new Response(JSON.stringify(rewrite(await c.res.json())), { status, headers })
  })
  app.use(guardRequest(parts))`,
})

const NEWER_EDGE: SourceChange[] = [
  ...NEWER_FRAMES,
  rewriteAnswers(`Object.assign(members, { ${LATER} })
      if (members.roles) members.roles.push('herald')
      if (members.kind) members.kind = 'passkey'
      if (members.type === 'tls') members.type = 'quic'
      if (members.code === 'SERVICE_UNKNOWN') members.code = 'SERVICE_MOVED'`),
  {
    file: 'edge/src/connectors/control.ts',
    find: 'ws.send(JSON.stringify(message))',
    replace: `{
      for (const unknown of ['{"type":"forecast","rain":true}', '{"type":7}', 'no JSON', '[]', Buffer.of(1, 2)]) {
        ws.send(unknown)
      }
      ws.send(JSON.stringify({ ...message, ${LATER} }))
    }`,
  },
  {
    file: 'edge/src/connectors/control.ts',
    find: "say(ws, { type: 'refused', ...told })",
    replace: "say(ws, { type: 'refused', ...told, code: 'CODE_OF_LATER' })",
  },
]

const OLDER_EDGE: SourceChange[] = [
  rewriteAnswers(`for (const name of ['enrollTokens', 'targets', 'ssh', 'sshUserCa', 'sshHostCa', 'sshHostKeys']) delete members[name]
      for (const name of ['kind', 'amr', 'acr', 'authTime']) delete members[name]`),
  { file: 'edge/src/connectors/control.ts', find: 'new Set([FLOW_IDENTITY_FEATURE])', replace: 'new Set()' },
]

const NEWER_CLI: SourceChange[] = [
  ...NEWER_FRAMES,
  {
    file: 'cli/src/connector/control.ts',
    find: 'ws.send(JSON.stringify(attachMessage(requires)))',
    replace: `{
      const requiring = process.env.TEST_REQUIRES?.split(',') ?? requires
      ws.send(JSON.stringify({ ...attachMessage(requiring), features: ['forecast'], ${LATER} }))
      for (const unknown of ['{"type":"forecast"}', '{"type":7}', 'no JSON', '[]', Buffer.of(1, 2)]) ws.send(unknown)
    }`,
  },
]

const OLDER_CLI: SourceChange[] = [
  { file: 'cli/src/connector/control.ts', find: 'instanceId: INSTANCE_ID,', replace: '' },
]

let echo: TcpService
let builds: Record<'newerEdge' | 'olderEdge' | 'newerCli' | 'olderCli', NeighbourBuild>
let today: string

before(async () => {
  echo = await startEcho()
  today = await readVersion(path.join(import.meta.dirname, '..', 'packages', 'cli'))
  builds = {
    newerEdge: await buildNeighbour('edge', 1, NEWER_EDGE),
    olderEdge: await buildNeighbour('edge', -1, OLDER_EDGE),
    newerCli: await buildNeighbour('cli', 1, NEWER_CLI),
    olderCli: await buildNeighbour('cli', -1, OLDER_CLI),
  }
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
})

type Program = { program?: string }

/** A person whose `postern` is this build. */
class Person {
  readonly home: string = makeTempFolder('home')
  readonly #build: Program

  private constructor(build: Program) {
    this.#build = build
  }

  static async signIn(edge: EdgeProcess, build: Program): Promise<Person> {
    const person = new Person(build)
    const { code, stderr } = await tryLogIn(edge, person.home, 'operator@mycorp.com', build.program)
    assert.equal(code, 0, stderr)
    return person
  }

  run(args: readonly string[], stdin = '') {
    return runPostern(args, { home: this.home, stdin, ...this.#build })
  }

  async runWell(args: readonly string[], stdin = ''): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, stdin)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }

  connect(port: number, name: string): Promise<ConnectedService> {
    return connectService({ home: this.home, port, name, ...this.#build })
  }
}

/** All that people do every day.
 *  @returns the person and their connector, which is the caller's to end */
async function worksTogether(edge: EdgeProcess, build: Program) {
  const person = await Person.signIn(edge, build)
  assert.match(await person.runWell(['whoami']), /^operator@mycorp\.com\n/)
  await using opened = new AsyncDisposableStack()
  const connected = opened.use(await person.connect(echo.port, 'db'))
  const clientArgs = ['client', 'tls', '--host', connected.host]
  assert.equal(await person.runWell(clientArgs, 'hello'), 'hello')
  await usesStateOfLater(person, clientArgs)

  const { services } = JSON.parse(await person.runWell(['service', 'list', '--json']))
  assert.ok(services.some(({ host }: { host: string }) => host === connected.host))
  const update = ['service', 'update', connected.label, '--name', 'db of today']
  assert.match(await person.runWell(update), /db of today/)
  assert.match(await person.runWell(['audit', 'list']), /flow\.decided/)

  await using refused = await person.connect(await findFreePort(), 'closed')
  const { code, stderr } = await person.run(['client', 'tls', '--host', refused.host], 'hello')
  assert.equal(code, 6)
  assert.match(stderr, /refused the connection \(SERVICE_REFUSED\)/)
  assert.ok(!connected.events().some(({ event }) => event === 'disconnected'))
  opened.move()
  return { person, connected }
}

/** Two versions may be installed beside each other, or one be taken back: they share the state folder. */
async function usesStateOfLater(person: Person, clientArgs: readonly string[]): Promise<void> {
  for (const file of globSync(path.join(person.home, '**', '*.json'))) {
    writeFileSync(
      file,
      JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), later: { than: 'this' } }),
    )
  }
  assert.equal(await person.runWell(clientArgs, 'hello'), 'hello')
}

async function readVersionCheck(person: Person) {
  const { stdout } = await person.run(['doctor', '--json'])
  return JSON.parse(stdout).checks.find(({ name }: { name: string }) => name === 'version')
}

describe('postern of today at an edge that is one minor version newer', () => {
  test('everything works; what it does not know is skipped, or told as it is', async () => {
    await using edge = await startEdge(builds.newerEdge)
    const { person, connected } = await worksTogether(edge, {})
    await using _connected = connected
    const { version } = builds.newerEdge
    assert.deepEqual(await readVersionCheck(person), {
      name: 'version',
      state: 'warn',
      message: `postern is ${today}, the edge is ${version}: they do together what both can`,
      fix: `install postern ${version} on this machine`,
    })

    const policy = await person.run(['policy', 'get', connected.label])
    assert.equal(policy.code, 6, 'a condition that is left out would be another policy')
    assert.match(policy.stderr, /PROTOCOL_INVALID[\s\S]*postern doctor/)
    const unknown = await person.run(['service', 'show', 'nobodys-service'])
    assert.equal(unknown.code, 2)
    assert.match(unknown.stderr, /\(SERVICE_MOVED\)/)

    await person.runWell(['service', 'delete', connected.label])
    const { code, stderr } = await within('the connector ends', connected.program.ended)
    assert.equal(code, 5)
    assert.match(stderr, /\(CODE_OF_LATER\) \(CONNECTOR_REFUSED\)/)
  })
})

test('postern of today at an edge that is one minor version older: everything works', async () => {
  await using edge = await startEdge(builds.olderEdge)
  const { person, connected } = await worksTogether(edge, {})
  await using _connected = connected
  const check = await readVersionCheck(person)
  assert.equal(check.state, 'warn')
  assert.ok(check.fix.includes(`operator install ${today}`), check.fix)

  // a service that is told who comes would be told less: that is said, and not done
  await using program = spawnConnect({
    ...{ home: person.home, port: echo.port, name: 'tells who comes' },
    args: ['--allow-any-authenticated', '--proxy-protocol', 'v2'],
  })
  const { message } = await waitForEvent(program, 'disconnected')
  assert.equal(message, 'this edge does not have "flow-identity", which the connector requires')
})

describe('at an edge of today', () => {
  let edge: EdgeProcess
  before(async () => {
    edge = await startEdge()
  })
  after(async () => {
    await edge?.[Symbol.asyncDispose]()
  })

  test('postern that is one minor version newer, and says more: everything works', async () => {
    const { person, connected } = await worksTogether(edge, builds.newerCli)
    await using _connected = connected
    assert.match((await readVersionCheck(person)).fix, /operator install/)
    await person.runWell(['service', 'delete', connected.label])
    assert.equal((await within('the connector ends', connected.program.ended)).code, 5)
  })

  test('postern that is one minor version older, and says less: everything works', async () => {
    const { person, connected } = await worksTogether(edge, builds.olderCli)
    await using _connected = connected
    const { fix } = await readVersionCheck(person)
    assert.equal(fix, `install postern ${today} on this machine`)
    await person.runWell(['service', 'delete', connected.label])
    assert.equal((await within('the connector ends', connected.program.ended)).code, 5)
  })

  test('a connector that requires what this edge does not have: told by name, and it goes on asking', async () => {
    const home = await makePerson(edge, 'operator@mycorp.com')
    await using program = spawnConnect({
      ...{ home, port: echo.port, name: 'demanding' },
      env: { TEST_REQUIRES: 'time-travel' },
      program: builds.newerCli.program,
    })
    const disconnected = () => program.stdout.split('\n').filter((line) => line.includes('"disconnected"'))
    const lines = await program.output(
      () => (disconnected().length >= 2 ? disconnected() : undefined),
      60_000,
    )
    for (const line of lines.slice(0, 2)) {
      const { code, message } = JSON.parse(line)
      assert.equal(code, 'PROTOCOL_INVALID')
      assert.equal(message, 'this edge does not have "time-travel", which the connector requires')
    }
    assert.ok(program.isRunning, 'the edge may be updated')
  })

  test('a request with a member this edge does not know: refused, and it is named', async () => {
    const session = await signInByHand(edge, 'operator@mycorp.com')
    const allow = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }
    const body = { name: 'later', type: 'tls', allow, onlyAtNight: true }
    const answer = await callApi(edge, session.key, session.accessToken, '/v1/services', body)
    assert.deepEqual([answer.status, answer.json.error.code], [400, 'REQUEST_INVALID'])
    assert.match(answer.json.error.message, /onlyAtNight/)
    assert.match(answer.json.error.hint, /postern doctor/)
  })
})
