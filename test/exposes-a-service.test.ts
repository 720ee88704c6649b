import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import type { Program } from '../demo/program.ts'
import { type ConnectOptions, connectService, spawnConnect } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { until, within } from './support/until.ts'

/** `postern connect` and `postern service`, as operators meet them. */

/** The default: how long a flow waits for a connector that does not answer. */
const ROUTE_TIMEOUT_MS = 10_000

let edge: EdgeProcess
let echo: TcpService
let admin: string
let ann: string
let bob: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  admin = await makePerson(edge, 'operator@mycorp.com')
  ann = await makePerson(edge, 'ann@mycorp.com')
  bob = await makePerson(edge, 'bob@mycorp.com')
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

interface Service {
  label: string
  host: string
  name: string
  owner: string
  connectors: number
  allow: { emailDomains: string[]; emailAddresses: string[]; anyAuthenticated: boolean }
}

const connect = (home: string, name: string, more: Partial<ConnectOptions> = {}) =>
  connectService({ home, port: echo.port, name, ...more })

/** `postern connect` that is expected to fail: its result. */
const connectInVain = (home: string, name: string, more: Partial<ConnectOptions> = {}) => {
  const program = spawnConnect({ home, port: echo.port, name, ...more })
  return within('postern connect gives up', program.ended)
}

const reach = (home: string, host: string, stdin = 'hello') =>
  runPostern(['client', 'tls', '--host', host], { home, stdin })

const service = (home: string, ...args: string[]) => runPostern(['service', ...args], { home })

async function listServices(home: string): Promise<Service[]> {
  const { code, stdout, stderr } = await service(home, 'list', '--json')
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout).services
}

async function showService(home: string, name: string): Promise<Service> {
  const { code, stdout, stderr } = await service(home, 'show', name, '--json')
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout).service
}

describe('name and label', () => {
  test('name and owner stand for one label, also after a restart', async () => {
    const first = await connect(ann, 'stable')
    assert.match(first.label, /^[a-z]+-[a-z]+-\d{4}$/)
    assert.equal(await first.stop(), 0)
    await using second = await connect(ann, 'stable')
    assert.equal(second.host, first.host)
    assert.equal((await reach(ann, second.host)).stdout, 'hello')
  })

  test('another operator with the same name gets another service', async () => {
    await using mine = await connect(ann, 'database')
    await using theirs = await connect(bob, 'database')
    assert.notEqual(mine.label, theirs.label)
    assert.equal((await service(bob, 'show', mine.label)).code, 1, 'bob sees a service of ann')
    assert.match((await service(bob, 'delete', mine.label)).stderr, /SERVICE_UNKNOWN/)
    assert.equal((await reach(ann, mine.host)).stdout, 'hello')
  })

  test('a label is chosen with --label and cannot be taken by somebody else, deleted or not', async () => {
    const taken = ['--label', 'ann-was-here']
    await using mine = await connect(ann, 'labelled', { args: taken, allowedEmailDomains: ['mycorp.com'] })
    assert.equal(mine.host, 'ann-was-here.edge.localhost')
    const rival = await connectInVain(bob, 'mine now', { args: taken, allowedEmailDomains: ['mycorp.com'] })
    assert.equal(rival.code, 1)
    assert.match(rival.stderr, /LABEL_TAKEN/)

    assert.equal((await service(ann, 'delete', 'ann-was-here')).code, 0)
    await mine.program.ended
    const late = await connectInVain(bob, 'mine now', { args: taken, allowedEmailDomains: ['mycorp.com'] })
    assert.match(late.stderr, /LABEL_TAKEN/)
    assert.deepEqual(
      (await listServices(bob)).filter(({ name }) => name === 'mine now'),
      [],
    )
    await using again = await connect(ann, 'anew', { args: taken, allowedEmailDomains: ['mycorp.com'] })
    assert.equal(again.label, 'ann-was-here')
  })

  test('labels that would not be a host name, or that the edge keeps for itself: exit 2', async () => {
    for (const label of ['UPPER', '-x-', 'a.b', 'ab', 'mtls', 'xn--caf-dma', 'x'.repeat(64), 'a\u001b[2Jb']) {
      const refused = await connectInVain(ann, 'odd label', { args: ['--label', label, '--batch'] })
      assert.equal(refused.code, 2, `${JSON.stringify(label)}: ${refused.stderr}`)
      assert.match(refused.stderr, /LABEL_INVALID/)
      assert.ok(!refused.stderr.includes('\u001b'))
    }
    assert.ok(!(await listServices(ann)).some(({ name }) => name === 'odd label'))
  })

  test('a name with escape sequences is refused, and its bytes reach no terminal', async () => {
    for (const name of ['\u001b]0;owned\u0007', 'a\u009b2Jb', 'two\nlines', 'right\u202eleft', '']) {
      const refused = await connectInVain(ann, name, { allowedEmailDomains: ['mycorp.com'] })
      assert.equal(refused.code, 2, `${JSON.stringify(name)}: ${refused.stderr}`)
      for (const byte of ['\u001b', '\u0007', '\u009b', '\u202e'])
        assert.ok(!(refused.stdout + refused.stderr).includes(byte), JSON.stringify(name))
    }
    await using shown = await connect(ann, "it's <b>$HOME</b> ☃", { allowedEmailDomains: ['mycorp.com'] })
    assert.equal((await showService(ann, shown.label)).name, "it's <b>$HOME</b> ☃")
    const renamed = await service(ann, 'update', shown.label, '--name', 'evil\u001b[31m')
    assert.equal(renamed.code, 2)
    assert.ok(!renamed.stderr.includes('\u001b'))
  })
})

describe('who may enter', () => {
  const lists = { allowedEmailDomains: ['mycorp.com'], allowedEmailAddresses: ['contractor@gmail.com'] }

  test('lists that differ on re-use stop it with both shown; none, or the same, keep them', async () => {
    const created = await connect(ann, 'listed', lists)
    await created.stop()
    const differing = await connectInVain(ann, 'listed', { allowedEmailDomains: ['elsewhere.example'] })
    assert.equal(differing.code, 2)
    assert.match(differing.stderr, /ALLOW_LIST_DIFFERS/)
    for (const shown of ['mycorp.com', 'contractor@gmail.com', 'elsewhere.example', '--replace-allow-list'])
      assert.ok(differing.stderr.includes(shown), `${shown} in ${differing.stderr}`)

    for (const same of [{ allowedEmailDomains: [] }, { ...lists, allowedEmailDomains: ['MyCorp.com'] }]) {
      const reused = await connect(ann, 'listed', same)
      assert.equal(reused.label, created.label)
      await reused.stop()
    }
    const { allow } = await showService(ann, created.label)
    assert.deepEqual([allow.emailDomains, allow.emailAddresses], [['mycorp.com'], ['contractor@gmail.com']])
  })

  test('--replace-allow-list overwrites them', async () => {
    const created = await connect(ann, 'replaced', lists)
    await created.stop()
    await using replaced = await connect(ann, 'replaced', {
      allowedEmailDomains: ['elsewhere.example'],
      args: ['--replace-allow-list'],
    })
    assert.equal(replaced.label, created.label)
    const { allow } = await showService(ann, replaced.label)
    assert.deepEqual([allow.emailDomains, allow.emailAddresses], [['elsewhere.example'], []])
  })

  test('a restart with the old list does not undo a tightened one, with and without a session', async () => {
    const home = await makePerson(edge, 'ann@mycorp.com')
    const created = await connect(home, 'tightened', lists)
    await created.stop()
    await service(home, 'update', created.label, '--allowed-email-addresses', 'ann@mycorp.com')
    const restarted = await connectInVain(home, 'tightened', lists)
    assert.equal(restarted.code, 2)
    assert.match(restarted.stderr, /ALLOW_LIST_DIFFERS/)
    await runPostern(['logout'], { home })
    const without = await connectInVain(home, 'tightened', lists)
    assert.equal(without.code, 2, without.stderr)
    assert.match(without.stderr, /ALLOW_LIST_DIFFERS/)
    const { allow } = await showService(admin, created.label)
    assert.deepEqual([allow.emailDomains, allow.emailAddresses], [[], ['ann@mycorp.com']])
  })

  test("the spellings of the tool that Postern's commands grew from", async () => {
    await using old = await connect(ann, 'remote access for my ssh server', {
      args: [
        ...['--cloudauth', '--allowed_email_addresses', 'contractor@gmail.com'],
        ...['--allowed_email_domains', 'mycorp.com', '--host', 'localhost', '--type', 'tls'],
      ],
      allowedEmailDomains: [],
    })
    const { allow } = await showService(ann, old.label)
    assert.deepEqual([allow.emailDomains, allow.emailAddresses], [['mycorp.com'], ['contractor@gmail.com']])
  })

  test('invalid domains and addresses: exit 2, every bad one named, nothing created', async () => {
    const refused = await connectInVain(ann, 'never', {
      allowedEmailDomains: ['mycorp.com', '@bad.example', '*.wild.example', 'no dots'],
      allowedEmailAddresses: ['not-an-address', 'two@at@signs', 'fine@mycorp.com'],
    })
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, /DOMAIN_INVALID|ADDRESS_INVALID/)
    for (const bad of ['@bad.example', '*.wild.example', 'no dots', 'not-an-address', 'two@at@signs'])
      assert.ok(refused.stderr.includes(bad), `${bad} in ${refused.stderr}`)
    assert.ok(!refused.stderr.includes('fine@mycorp.com'))
    assert.ok(!(await listServices(ann)).some(({ name }) => name === 'never'))
  })

  test('no allow rule: exit 2 and nothing created; --allow-any-authenticated is one', async () => {
    for (const args of [[], ['--allowed-email-domains', ''], ['--allowed-email-domains', ' , ']]) {
      const refused = await connectInVain(ann, 'open', { allowedEmailDomains: [], args })
      assert.equal(refused.code, 2, refused.stderr)
      assert.match(refused.stderr, /ALLOW_LIST_EMPTY/)
      assert.match(refused.stderr, /--allow-any-authenticated/)
    }
    assert.ok(!(await listServices(ann)).some(({ name }) => name === 'open'))
    await using open = await connect(ann, 'open', { args: ['--allow-any-authenticated'] })
    const stranger = await makePerson(edge, 'stranger@elsewhere.example')
    assert.equal((await reach(stranger, open.host)).stdout, 'hello')
  })

  test('domains match exactly: a sub-domain is another domain', async () => {
    await using exact = await connect(ann, 'exact')
    for (const email of ['a@sub.mycorp.com', 'a@notmycorp.com', 'a@mycorp.com.evil.example']) {
      const home = await makePerson(edge, email)
      assert.equal((await reach(home, exact.host)).code, 5, email)
    }
  })

  test('who is not an operator exposes nothing: exit 5', async () => {
    const visitor = await makePerson(edge, 'visitor@gmail.com')
    const refused = await connectInVain(visitor, 'visitor')
    assert.equal(refused.code, 5)
    assert.match(refused.stderr, /OPERATOR_REQUIRED/)
    assert.deepEqual(await listServices(visitor), [])
  })
})

describe('the life of a connector', () => {
  async function closedFlows(label: string): Promise<{ durationMs: number; code?: string }[]> {
    const args = ['audit', 'list', '--json', '--limit', '1000', '--type', 'flow.closed']
    return until('the flows are recorded', async () => {
      const { stdout } = await runPostern(args, { home: admin })
      const records = stdout.split('\n').filter(Boolean)
      const ofLabel = records.map((line) => JSON.parse(line)).filter((record) => record.label === label)
      return ofLabel.length === 7 && ofLabel
    })
  }

  test('several connectors share the flows, and when one is killed the next flow uses the other', async () => {
    await using one = await connect(ann, 'shared')
    await using two = await connect(ann, 'shared')
    assert.equal(one.host, two.host)
    assert.equal((await showService(ann, one.label)).connectors, 2)
    const flows: Program[] = []
    for (let count = 0; count < 4; count++) {
      const flow = spawnPostern(['client', 'tls', '--host', one.host], { home: bob })
      flow.child.stdin.write('x')
      await flow.matches(/x/)
      flows.push(flow)
    }
    const served = [one, two].map(
      (connector) => connector.events().filter(({ event }) => event === 'flow.opened').length,
    )
    assert.ok(Math.min(...served) >= 1 && served[0]! + served[1]! === 4, `flows: ${served}`)
    for (const flow of flows) flow.child.stdin.end()
    for (const flow of flows) assert.equal((await flow.ended).code, 0)

    await one.kill9()
    for (let flow = 0; flow < 3; flow++) {
      const next = await reach(bob, two.host)
      assert.equal(next.stdout, 'hello', next.stderr)
    }
    // by the edge's clock: what is led to the one that is gone waits for it
    for (const { durationMs, code } of (await closedFlows(two.label)).slice(-3)) {
      assert.ok(code === undefined && durationMs < ROUTE_TIMEOUT_MS, `${code} after ${durationMs} ms`)
    }
    await until('the edge counts one', async () => (await showService(ann, two.label)).connectors === 1)
  })

  test('after a restart of the edge the connector is back by itself, and flows work again', async () => {
    await using first = await startEdge({ keepsPort: true })
    const { port, dataDir } = first
    const home = await makePerson(first, 'operator@mycorp.com')
    await using connector = await connectService({ home, port: echo.port })
    assert.equal((await reach(home, connector.host)).stdout, 'hello')
    await first.kill9()
    await connector.event('disconnected')
    assert.equal((await reach(home, connector.host)).code, 6)
    await using _second = await startEdge({ port, dataDir })
    await connector.event('reconnected')
    const reached = await reach(home, connector.host)
    assert.equal(reached.stdout, 'hello', reached.stderr)
  })

  test('a list that is changed while the connector runs does not end it at the next restart of the edge', async () => {
    await using first = await startEdge({ keepsPort: true })
    const { port, dataDir } = first
    const home = await makePerson(first, 'operator@mycorp.com')
    await using connector = await connectService({ home, port: echo.port })
    const changed = await service(
      home,
      'update',
      connector.label,
      '--allowed-email-addresses',
      'operator@mycorp.com',
    )
    assert.equal(changed.code, 0, changed.stderr)
    await first.stop()
    await using _second = await startEdge({ port, dataDir })
    await connector.event('reconnected')
    assert.equal((await reach(home, connector.host)).stdout, 'hello')
    const { allow } = await showService(home, connector.label)
    assert.deepEqual([allow.emailDomains, allow.emailAddresses], [[], ['operator@mycorp.com']])
  })

  test('it lives on its certificate: its operator logs out, and it even starts again', async () => {
    const home = await makePerson(edge, 'carl@mycorp.com')
    const running = await connect(home, 'lives on')
    assert.equal((await runPostern(['logout'], { home })).code, 0)
    assert.equal((await reach(bob, running.host)).stdout, 'hello')
    assert.equal(await running.stop(), 0)
    await using restarted = await connect(home, 'lives on')
    assert.equal(restarted.host, running.host)
    assert.equal((await reach(bob, restarted.host)).stdout, 'hello')
    assert.equal((await runPostern(['whoami', '--batch'], { home })).code, 4)
  })

  test('stopping it leaves the service, offline', async () => {
    const stopped = await connect(ann, 'stopped')
    assert.equal((await reach(bob, stopped.host)).stdout, 'hello')
    assert.equal(await stopped.stop('SIGINT'), 0)
    await until('the edge has noticed', async () => (await showService(ann, stopped.label)).connectors === 0)
    const away = await reach(bob, stopped.host)
    assert.equal(away.code, 6)
    assert.match(away.stderr, /SERVICE_OFFLINE/)
  })

  test('a target that is down does not stop it; people reach it once it is up', async () => {
    const port = await findFreePort()
    await using early = await connect(ann, 'early', { port })
    assert.equal((await showService(ann, early.label)).connectors, 1)
    const refused = await reach(bob, early.host)
    assert.equal(refused.code, 6)
    assert.match(refused.stderr, /SERVICE_REFUSED/)
    const server = createServer({ allowHalfOpen: true }, (socket) =>
      socket.on('error', () => {}).pipe(socket),
    ).listen(port, '127.0.0.1')
    await once(server, 'listening')
    assert.equal((await reach(bob, early.host)).stdout, 'hello')
    server.close()
  })

  test('--json prints one object per line: ready, flows as they come and go, with their bytes', async () => {
    await using connector = await connect(ann, 'told')
    await reach(bob, connector.host, 'x'.repeat(1_000))
    const closed = await connector.event('flow.closed')
    const [ready, opened] = connector.events()
    assert.deepEqual([ready?.event, ready?.host, ready?.edge], ['ready', connector.host, edge.origin])
    assert.deepEqual(
      [opened?.event, opened?.email, opened?.flowId],
      ['flow.opened', 'bob@mycorp.com', closed.flowId],
    )
    assert.deepEqual([closed.bytesUp, closed.bytesDown, closed.error], [1_000, 1_000, undefined])
    for (const event of connector.events()) assert.ok(Math.abs(Number(event.at) - Date.now()) < 60_000)
  })
})

describe('postern service', () => {
  test('show, update and delete take the label or the full host', async () => {
    await using connector = await connect(ann, 'handled')
    const { label, host } = connector
    assert.deepEqual(await showService(ann, label), await showService(ann, host))
    assert.equal((await service(ann, 'update', host, '--name', 'renamed')).code, 0)
    const wider = await service(
      ann,
      'update',
      label,
      '--allowed-email-domains',
      'mycorp.com,elsewhere.example',
      '--json',
    )
    assert.deepEqual(JSON.parse(wider.stdout).service.allow.emailDomains, ['elsewhere.example', 'mycorp.com'])
    assert.equal((await showService(ann, host.toUpperCase())).name, 'renamed')
    const listed = await service(ann, 'list')
    assert.match(listed.stdout, new RegExp(`^${host} +renamed +ann@mycorp\\.com`, 'm'))

    const deleted = await service(ann, 'delete', host)
    assert.equal(deleted.code, 0, deleted.stderr)
    const ended = await within('the connector of a deleted service ends', connector.program.ended)
    assert.equal(ended.code, 5)
    assert.match(ended.stderr, /CONNECTOR_REFUSED/)
    assert.equal((await service(ann, 'show', label)).code, 1)
    assert.equal((await reach(bob, host)).code, 5)
  })

  test('an allow-list is never updated to nobody, nor to what is not a domain', async () => {
    await using connector = await connect(ann, 'kept')
    for (const args of [
      ['--allowed-email-domains', ''],
      ['--allowed-email-domains', '*.mycorp.com'],
      ['--allowed-email-addresses', 'mycorp.com'],
      [],
    ]) {
      assert.equal((await service(ann, 'update', connector.label, ...args)).code, 2)
    }
    assert.deepEqual((await showService(ann, connector.label)).allow.emailDomains, ['mycorp.com'])
  })

  test('an admin sees the services of all, and may change them', async () => {
    await using connector = await connect(bob, 'seen')
    const seen = (await listServices(admin)).find(({ label }) => label === connector.label)
    assert.equal(seen?.owner, 'bob@mycorp.com')
    assert.ok(!(await listServices(ann)).some(({ label }) => label === connector.label))
    assert.equal((await service(admin, 'update', connector.label, '--name', 'seen by admin')).code, 0)
    assert.equal((await showService(bob, connector.label)).name, 'seen by admin')
  })
})
