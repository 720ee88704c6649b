import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let operator: string
let dev: string
let other: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  dev = await makePerson(edge, 'dev@mycorp.com')
  other = await makePerson(edge, 'other@mycorp.com')
  service = await connectService({ home: operator, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const reach = (home: string) =>
  runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
const explain = (home: string, ...args: string[]) => runPostern(['explain', ...args], { home })

test('a refused flow is named on stderr; one id and one code on stderr, in the audit log and in its explanation', async () => {
  assert.equal((await reach(dev)).code, 0) // with a certificate in its cache, the flow itself is refused below
  const lists = ['--allowed-email-addresses', 'operator@mycorp.com']
  assert.equal((await runPostern(['service', 'update', service.label, ...lists], { home: operator })).code, 0)
  const refused = await reach(dev)
  assert.equal(refused.code, 5)
  const [, flowId = ''] = /more: postern explain ([0-9a-f-]{36})\n/.exec(refused.stderr) ?? []
  assert.match(refused.stderr, /\(ACCESS_DENIED\)/)

  const mine = await explain(dev, flowId)
  assert.equal(mine.code, 0, mine.stderr)
  assert.match(
    mine.stdout,
    new RegExp(`^flow ${flowId}: dev@mycorp\\.com to ${service.host} from 127\\.0\\.0\\.1`),
  )
  assert.match(mine.stdout, /it was not admitted \(ACCESS_DENIED\)\n/)
  assert.match(mine.stdout, /what to do: Ask the owner of the service/)
  assert.doesNotMatch(mine.stdout, /no rule/, 'the rule is not for the person')

  const owners = JSON.parse((await explain(operator, flowId, '--json')).stdout)
  assert.deepEqual(
    owners.events.map((event: { code: string; rule: string }) => [event.code, event.rule]),
    [['ACCESS_DENIED', 'no rule admits']],
  )
  const stranger = await explain(other, flowId)
  assert.equal(stranger.code, 1)
  assert.match(stranger.stderr, /FLOW_UNKNOWN/)
  const unknown = await explain(other, flowId.replaceAll(/[0-9]/g, '0'))
  assert.equal(
    unknown.stderr.replaceAll(/[0-9a-f-]{36}/g, ''),
    stranger.stderr.replaceAll(/[0-9a-f-]{36}/g, ''),
  )

  const { stdout } = await runPostern(['audit', 'list', '--type', 'flow.decided', '--json'], {
    home: operator,
  })
  const recorded = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const event = recorded.find((found) => found.flowId === flowId)
  assert.deepEqual([event.code, event.email], ['ACCESS_DENIED', 'dev@mycorp.com'])
})

test('a flow that ended well says what it carried', async () => {
  assert.equal((await reach(operator)).code, 0)
  const { stdout } = await runPostern(['audit', 'list', '--type', 'flow.closed', '--json'], {
    home: operator,
  })
  const { flowId } = JSON.parse(stdout.trim().split('\n').at(-1)!)
  assert.match((await explain(operator, flowId)).stdout, /it ended, 5 bytes up and 5 bytes down in /)
})

test('a code is explained without an edge, in any case of letters; nonsense is told apart', async () => {
  const home = makeTempFolder('explain')
  const found = await explain(home, 'service_offline')
  assert.equal(found.code, 0, found.stderr)
  assert.match(found.stdout, /^SERVICE_OFFLINE \(exit 6\)\n/)
  assert.match(found.stdout, /what to do: \S/)
  const json = JSON.parse((await explain(home, 'OUTSIDE_HOURS', '--json')).stdout)
  assert.deepEqual([json.code, json.exitCode, json.http], ['OUTSIDE_HOURS', 5, 403])
  const nonsense = await explain(home, 'SERVICE_OFLINE')
  assert.equal(nonsense.code, 2)
  assert.match(nonsense.stderr, /neither an error code nor a flow id/)
})
