import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let operator: string
let dev: string
const folder = makeTempFolder('policy')

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  dev = await makePerson(edge, 'dev@mycorp.com')
  service = await connectService({ home: operator, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const reach = (home: string) =>
  runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })

async function postern(...args: string[]) {
  const result = await runPostern(args, { home: operator })
  return { ...result, json: () => JSON.parse(result.stdout) }
}

function writePolicy(lines: readonly string[], header = `service: ${service.label}`): string {
  const file = path.join(folder, 'policy.yaml')
  writeFileSync(file, [header, ...lines, ''].join('\n'))
  return file
}

async function apply(...lines: string[]): Promise<void> {
  const { code, stderr } = await postern('policy', 'apply', '-f', writePolicy(lines))
  assert.equal(code, 0, stderr)
}

/** A window of the week that does not contain the present moment. */
const NEVER_NOW = (() => {
  const yesterday = ['sat', 'sun', 'mon', 'tue', 'wed', 'thu', 'fri'][new Date().getUTCDay()]
  return `  hours: [{ days: [${yesterday}], from: "00:00", to: "00:01", time_zone: UTC }]`
})()

test('a condition that does not hold: refused with its own code and sentence; lifted: admitted again', async () => {
  assert.equal((await reach(dev)).code, 0)
  await apply('require:', NEVER_NOW)
  const closed = await reach(dev)
  assert.equal(closed.code, 5)
  assert.match(closed.stderr, /is not open to you at this time \(OUTSIDE_HOURS\)/)
  await apply('require:', '  source_networks: [192.0.2.0/24]')
  assert.match((await reach(dev)).stderr, /NETWORK_NOT_ALLOWED/)
  await apply('require:', '  source_networks: [127.0.0.0/8]', '  session_kinds: [browser]')
  const open = await reach(dev)
  assert.equal(open.code, 0, open.stderr)
  assert.equal(open.stdout, 'hello')
})

test('a deny rule wins over the list, for one person only, and ends their live flow', async () => {
  await apply('allow: []')
  await using flow = spawnPostern(['client', 'tls', '--host', service.host], { home: dev })
  await using other = spawnPostern(['client', 'tls', '--host', service.host], { home: operator })
  for (const { child } of [flow, other]) child.stdin.write('ping')
  await flow.matches(/ping/)
  await other.matches(/ping/)

  const file = writePolicy(['deny: [{ name: on leave, email_addresses: [dev@mycorp.com] }]'])
  const diff = await postern('policy', 'diff', '-f', file, '--json')
  assert.equal(diff.code, 0, diff.stderr)
  const would = diff.json()
  assert.deepEqual(
    [would.flows.map((found: { email: string }) => found.email), would.blocked.length, would.admitted],
    [['dev@mycorp.com'], 1, 0],
  )
  const words = await postern('policy', 'diff', '-f', file)
  assert.match(words.stdout, /ends 1 live flows, shuts out 1, newly admits 0/)

  const applied = await postern('policy', 'apply', '-f', file)
  assert.equal(applied.code, 0, applied.stderr)
  const ended = await flow.ended
  assert.equal(ended.code, 5)
  assert.match(ended.stderr, /FLOW_REVOKED/)
  assert.equal((await reach(dev)).code, 5)
  other.child.stdin.end(' still here')
  assert.equal((await other.ended).stdout, 'ping still here')
})

test('policy test says what would be decided, and by which rule', async () => {
  await apply('allow:', '  - { name: on call, groups: [dba], when: { source_networks: [10.0.0.0/8] } }')
  const ask = (...args: string[]) =>
    postern(
      'policy',
      'test',
      '--identity',
      'guest@example.com',
      '--service',
      service.label,
      '--json',
      ...args,
    )
  const stranger = (await ask()).json()
  assert.deepEqual(
    [stranger.allowed, stranger.code, stranger.rule],
    [false, 'ACCESS_DENIED', 'no rule admits'],
  )
  const away = (await ask('--group', 'dba', '--from', '192.0.2.7')).json()
  assert.deepEqual([away.allowed, away.code], [false, 'NETWORK_NOT_ALLOWED'])
  const here = (await ask('--group', 'dba', '--from', '10.9.8.7')).json()
  assert.deepEqual([here.allowed, here.rule], [true, 'allow rule "on call"'])
  const words = await postern('policy', 'test', '--identity', 'dev@mycorp.com', '--service', service.label)
  assert.match(words.stdout, /^allow\n {2}dev@mycorp\.com may reach .*: email domain mycorp\.com\.\n/)
})

test('two edits of one revision: the second is refused, and the history has both revisions', async () => {
  const got = await postern('policy', 'get', service.label)
  assert.equal(got.code, 0, got.stderr)
  const file = path.join(folder, 'edited.yaml')
  writeFileSync(file, got.stdout.replace('on call', 'on duty'))
  assert.equal((await postern('policy', 'apply', '-f', file)).code, 0)
  const late = await postern('policy', 'apply', '-f', file)
  assert.equal(late.code, 1)
  assert.match(late.stderr, /REVISION_CONFLICT/)
  const { revisions } = (await postern('policy', 'history', service.label, '--json')).json()
  const names = revisions
    .slice(0, 2)
    .map((entry: { policy: { allow: { name: string }[] } }) => entry.policy.allow[0]!.name)
  assert.deepEqual(names, ['on duty', 'on call'])
  assert.equal(revisions[0].changedBy, 'operator@mycorp.com')
})

test('what is wrong with a file is said with its place, and nothing is changed', async () => {
  const before = (await postern('policy', 'get', service.label)).stdout
  for (const [lines, message] of [
    [['alow: []'], /alow is not a key of a policy/],
    [
      ['require: { source_networks: [10.0.0.1/8] }'],
      /require\.sourceNetworks: "10\.0\.0\.1\/8" has bits set/,
    ],
    [['allow: [{ name: everybody }]'], /allow\[0\]: names nobody/],
  ] as const) {
    const refused = await postern('policy', 'apply', '-f', writePolicy(lines))
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, message)
    assert.match(refused.stderr, /POLICY_INVALID/)
  }
  assert.equal((await postern('policy', 'get', service.label)).stdout, before)
})

test('the defaults hold for every service; only administrators write them, and the record says who', async () => {
  const file = writePolicy(['deny: [{ email_addresses: [dev@mycorp.com] }]'], 'defaults: true')
  const refused = await runPostern(['policy', 'apply', '-f', file], { home: dev })
  assert.equal(refused.code, 5)
  assert.match(refused.stderr, /AUDITOR_REQUIRED|ADMIN_REQUIRED/)
  assert.equal((await postern('policy', 'apply', '-f', file)).code, 0)
  assert.match((await reach(dev)).stderr, /ACCESS_DENIED/)
  const { stdout } = await postern('audit', 'list', '--type', 'policy.updated', '--json')
  const last = JSON.parse(stdout.trim().split('\n').at(-1)!)
  assert.equal(last.email, 'operator@mycorp.com')
  assert.equal(last.serviceId, undefined)
  assert.deepEqual(last.before.deny, [])
  assert.deepEqual(last.after.deny, [{ emailAddresses: ['dev@mycorp.com'] }])
})
