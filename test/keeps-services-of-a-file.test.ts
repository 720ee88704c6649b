import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Program } from '../demo/program.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { type EventLine, readEvents, waitForEvent } from './support/event-lines.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, startGreeter, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { within } from './support/until.ts'

/** `postern connect -f connector.yaml`: many services, changed while flows run. */

const file = path.join(makeTempFolder('connector'), 'connector.yaml')

let edge: EdgeProcess
let echo: TcpService
let other: TcpService
let ann: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  other = await startGreeter('the other one: ')
  ann = await makePerson(edge, 'ann@mycorp.com')
})
after(async () => {
  await other?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const NAMES = Array.from({ length: 10 }, (_, index) => `service ${index}`)
const entry = (name: string, more: object = {}) => ({
  name,
  target: `127.0.0.1:${echo.port}`,
  allowed_email_domains: ['mycorp.com'],
  ...more,
})

/** An entry on each line, from line 2 on. */
function writeEntries(entries: readonly object[]): void {
  const lines = entries.map((values) => `  - ${JSON.stringify(values)}`)
  writeFileSync(file, `services:\n${lines.join('\n')}\n`)
}

const connectAll = () => spawnPostern(['connect', '-f', file, '--json', '--batch'], { home: ann })

async function listNames(): Promise<string[]> {
  const { stdout } = await runPostern(['service', 'list', '--json'], { home: ann })
  return JSON.parse(stdout).services.map(({ name }: { name: string }) => name)
}

describe('at the start', () => {
  const bad: [string, object, RegExp][] = [
    ['a target without a port', { target: 'db.internal' }, /has no port/],
    ['what the edge refuses', { label: 'mtls' }, /mtls/],
  ]
  for (const [what, values, message] of bad) {
    test(`one bad entry among ten starts nothing: ${what}`, async () => {
      writeEntries([...NAMES.slice(0, 9).map((name) => entry(name)), entry(NAMES[9]!, values)])
      const { code, stderr, stdout } = await within('it ends', connectAll().ended)
      assert.equal(code, 2, stderr)
      assert.match(stderr, message)
      assert.match(stderr, /line 11: /)
      assert.doesNotMatch(stderr, /line ([2-9]|10): /)
      assert.doesNotMatch(stdout, /"ready"/)
    })
  }

  test('a file that is no list, and one that is not there', async () => {
    writeFileSync(file, 'services: []\n')
    assert.match((await within('it ends', connectAll().ended)).stderr, /line 1: .*SERVICES_INVALID/)
    const missing = ['connect', '-f', '/nonexistent/connector.yaml']
    const { code, stderr } = await runPostern(missing, { home: ann })
    assert.equal(code, 2)
    assert.match(stderr, /cannot read \/nonexistent\/connector\.yaml/)
    const both = await runPostern(['connect', '-f', file, '--name', 'x'], { home: ann })
    assert.equal(both.code, 2)
  })
})

/** A flow that is open, and stays so. */
async function openFlow(host: string): Promise<Program> {
  const flow = spawnPostern(['client', 'tls', '--host', host], { home: ann })
  await says(flow, 'first')
  return flow
}

/** Whether what is sent comes back. */
async function says(flow: Program, text: string): Promise<void> {
  const before = flow.stdout.length
  flow.child.stdin.write(`${text}\n`)
  await flow.output(({ stdout }) => (stdout.slice(before).includes(`${text}\n`) ? true : undefined))
}

describe('while it runs', () => {
  let connector: Program
  const hosts = new Map<string, string>()
  const flows: Program[] = []

  const reach = (name: string) =>
    runPostern(['client', 'tls', '--host', hosts.get(name)!], { home: ann, stdin: 'hello' })
  const event = (name: string, matches?: (line: EventLine) => boolean) =>
    waitForEvent(connector, name, matches)
  const count = (name: string) => readEvents(connector).filter((line) => line.event === name).length

  /** Writes the file, and waits until it has been read. */
  async function change(entries: readonly object[], outcome: 'reloaded' | 'reload.failed') {
    const before = readEvents(connector).length
    writeEntries(entries)
    return connector.output(() =>
      readEvents(connector)
        .slice(before)
        .find(({ event }) => event === outcome),
    )
  }

  before(async () => {
    writeEntries(NAMES.map((name) => entry(name)))
    connector = connectAll()
    for (const name of NAMES) {
      const ready = await event('ready', (line) => line.name === name)
      hosts.set(name, String(ready.host))
    }
    flows.push(await openFlow(hosts.get('service 1')!), await openFlow(hosts.get('service 8')!))
  })
  after(async () => {
    for (const flow of flows) await flow.stop('SIGKILL')
    await connector?.stop('SIGKILL')
  })

  test('every service of the file is there', async () => {
    assert.deepEqual((await listNames()).sort(), NAMES)
    assert.equal((await reach('service 0')).stdout, 'hello')
    assert.equal((await reach('service 9')).stdout, 'hello')
    const [opened] = readEvents(connector).filter(({ event }) => event === 'flow.opened')
    assert.equal(opened!.name, 'service 1')
  })

  test('one bad entry is named with its line, and the other nine go on, changed as they were', async () => {
    const entries = NAMES.map((name) => entry(name))
    entries[1] = entry('service 1', { target: `127.0.0.1:${other.port}` })
    entries[8] = entry('service 8', { target: 'nowhere' })
    const { problems, services } = (await change(entries, 'reload.failed')) as unknown as {
      problems: { line: number; message: string; code: string }[]
      services: number
    }
    assert.deepEqual(
      problems.map(({ line, code }) => [line, code]),
      [[10, 'USAGE_INVALID']],
    )
    assert.match(problems[0]!.message, /"nowhere" has no port/)
    assert.equal(services, 10)
    await within('new flows find the new target', reachesOther())
    assert.equal((await reach('service 8')).stdout, 'hello')
    for (const flow of flows) await says(flow, 'after the change')
  })

  /** The new target is told to the edge by a connection of its own. */
  async function reachesOther(): Promise<void> {
    while ((await reach('service 1')).stdout !== 'the other one: hello');
  }

  test('what is out of the file takes no new flow; the one that runs goes on', async () => {
    const entries = NAMES.filter((name) => name !== 'service 8').map((name) => entry(name))
    entries[1] = entry('service 1', { target: `127.0.0.1:${other.port}` })
    entries.push(entry('service 10'))
    assert.equal((await change(entries, 'reloaded')).services, 10)
    await event('service.left', (line) => line.name === 'service 8')
    const { host } = await event('ready', (line) => line.name === 'service 10')
    hosts.set('service 10', String(host))
    assert.equal((await reach('service 10')).stdout, 'hello')
    const left = await reach('service 8')
    assert.equal(left.code, 6)
    assert.match(left.stderr, /SERVICE_OFFLINE/)
    for (const flow of flows) await says(flow, 'after it left')
  })

  test('a list that differs is refused by the edge; the service goes on with its own', async () => {
    const entries = NAMES.filter((name) => name !== 'service 8').map((name) => entry(name))
    entries[3] = entry('service 3', { allowed_email_domains: ['elsewhere.example'] })
    const { problems } = (await change(entries, 'reload.failed')) as unknown as {
      problems: { line: number; code: string; message: string }[]
    }
    assert.deepEqual(
      problems.map(({ line, code }) => [line, code]),
      [[5, 'ALLOW_LIST_DIFFERS']],
    )
    assert.equal((await reach('service 3')).stdout, 'hello')

    entries[3] = entry('service 3', {
      allowed_email_domains: ['mycorp.com', 'elsewhere.example'],
      replace_allow_list: true,
    })
    const readyBefore = count('ready')
    await change(entries, 'reloaded')
    await connector.output(() => (count('ready') > readyBefore ? true : undefined))
    await event('service.left', (line) => line.name === 'service 3')
    assert.equal((await reach('service 3')).stdout, 'hello')
    const { stdout } = await runPostern(['service', 'show', hosts.get('service 3')!], { home: ann })
    assert.match(stdout, /elsewhere\.example/)
  })

  test('SIGHUP reads the file again, and ends nothing', async () => {
    const before = count('reloaded')
    connector.signal('SIGHUP')
    await connector.output(() => (count('reloaded') > before ? true : undefined))
    for (const flow of flows) await says(flow, 'after SIGHUP')
  })

  test('a service that is deleted is told, and the others go on', async () => {
    assert.equal((await runPostern(['service', 'delete', hosts.get('service 5')!], { home: ann })).code, 0)
    const ended = await event('service.ended')
    assert.equal(ended.name, 'service 5')
    assert.equal((await reach('service 6')).stdout, 'hello')
  })

  test('SIGTERM ends it in order', async () => {
    assert.equal((await connector.stop('SIGTERM', 30_000)).code, 0)
  })
})
