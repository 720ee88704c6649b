import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { keygen, makeKey, type OwnSshd, opens, startOwnSshd } from './support/own-sshd.ts'
import { runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** A certificate that is valid for minutes still, and worthless at once. */

let edge: EdgeProcess
let operator: string
let sshd: OwnSshd
let service: ConnectedService

before(async () => {
  edge = await startEdge({ config: { ssh: { ttl: '10m' } } })
  operator = await makePerson(edge, 'operator@mycorp.com')
  sshd = await startOwnSshd()
  service = await connectService({ home: operator, port: sshd.port, name: 'ssh' })
  const args = [
    'sshd',
    'setup',
    '--host',
    service.host,
    '--user',
    sshd.user,
    '--scheduler',
    'none',
    '--batch',
  ]
  const made = await postern([...args, '--sshd-config', sshd.configFile, '--confirm-within', '1h'])
  assert.equal(made.code, 0, made.stderr)
  assert.doesNotMatch(made.stderr, /empty one stands in/)
  writeFileSync(path.join(sshd.folder, 'authorized_keys'), '') // certificates or nothing
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await sshd?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const postern = (args: readonly string[], home = operator) => runPostern(args, { home, timeoutMs: 180_000 })
const refresh = (...args: string[]) => postern(['sshd', 'refresh', '--sshd-config', sshd.configFile, ...args])
const krlFile = () => path.join(sshd.folder, 'postern', 'revoked.krl')

async function sign(home: string) {
  const { code, stderr } = await postern(['client', 'ssh-keysign', '--host', service.host, '--batch'], home)
  assert.equal(code, 0, stderr)
  const keyFile = path.join(home, '.ssh', service.host)
  const certificateFile = `${keyFile}-cert.pub`
  const serial = /Serial: (\d+)/.exec(keygen('-L', '-f', certificateFile))![1]!
  return { keyFile, certificateFile, serial }
}

/** What ssh-keygen says of it. */
function isListed(certificateFile: string): boolean {
  try {
    keygen('-Q', '-f', krlFile(), certificateFile)
    return false
  } catch (error) {
    assert.match(String(error), /ssh-keygen -Q/)
    return true
  }
}

test('accepted, revoked by its serial, refused; another one is accepted still', async () => {
  const ann = await makePerson(edge, 'ann@mycorp.com')
  const [mine, hers] = [await sign(operator), await sign(ann)]
  assert.ok(await opens(sshd, mine))
  assert.ok(!isListed(mine.certificateFile))

  const revoked = await postern(['revoke', '--certificate', hers.serial, '--batch'])
  assert.equal(revoked.code, 0, revoked.stderr)
  assert.ok(await opens(sshd, hers), 'until the server has heard of it')
  const refreshed = await refresh()
  assert.equal(refreshed.code, 0, refreshed.stderr)
  assert.ok(isListed(hers.certificateFile))
  assert.ok(!(await opens(sshd, hers)))
  assert.match(sshd.log(), /revoked/)
  assert.ok(!isListed(mine.certificateFile))
  assert.ok(await opens(sshd, mine))
})

test('everything of a person, at once', async () => {
  const bob = await makePerson(edge, 'bob@mycorp.com')
  const his = await sign(bob)
  assert.ok(await opens(sshd, his))
  assert.equal((await postern(['revoke', '--identity', 'bob@mycorp.com', '--batch'])).code, 0)
  assert.equal((await refresh()).code, 0)
  assert.ok(!(await opens(sshd, his)))
})

test('a server that believes another CA than the edge has keeps its list', async () => {
  const stateFile = path.join(sshd.folder, 'postern', 'state.json')
  const state = readFileSync(stateFile, 'utf8')
  const kept = readFileSync(krlFile())
  // revoked once more, so that there is a newer list to take; for a server of another CA it is somebody else's
  const his = await sign(await makePerson(edge, 'carl@mycorp.com'))
  assert.equal((await postern(['revoke', '--certificate', his.serial, '--batch'])).code, 0)
  const other = `${makeKey(path.join(makeTempFolder('ca'), 'ca'))}.pub`
  const userCa = readFileSync(other, 'utf8').split(' ').slice(0, 2).join(' ')
  // `userCas` says what has become of the CA of the setup: without it, that one is the only one
  writeFileSync(stateFile, JSON.stringify({ ...JSON.parse(state), userCa, userCas: undefined }))
  const refused = await refresh()
  assert.equal(refused.code, 5)
  assert.match(refused.stderr, /\(SSH_CA_UNKNOWN\)/)
  assert.deepEqual(readFileSync(krlFile()), kept)

  writeFileSync(stateFile, state)
  assert.equal((await refresh()).code, 0)
  assert.ok(isListed(his.certificateFile))
  assert.ok(!(await opens(sshd, his)))
})

test('a list of an older version, a damaged one and an edge that is away change nothing', async () => {
  const good = readFileSync(krlFile())
  const newer = Buffer.from(good)
  newer.writeBigUInt64BE(newer.readBigUInt64BE(12) + 1_000n, 12) // krl_version of PROTOCOL.krl
  writeFileSync(krlFile(), newer)
  const older = await refresh()
  assert.equal(older.code, 1)
  assert.match(older.stderr, /is older \(\d+\) than this server's \(\d+\) \(KRL_INVALID\)/)
  assert.deepEqual(readFileSync(krlFile()), newer)

  assert.equal((await refresh('--accept-older-list')).code, 0)
  assert.equal(readFileSync(krlFile()).readBigUInt64BE(12), good.readBigUInt64BE(12))

  writeFileSync(krlFile(), 'damaged')
  assert.equal((await refresh()).code, 0)
  assert.equal(readFileSync(krlFile()).readBigUInt64BE(12), good.readBigUInt64BE(12))
  assert.ok(await opens(sshd, await sign(operator)), 'it is a list that sshd can read')

  const kept = readFileSync(krlFile())
  await edge.stop()
  assert.equal((await refresh()).code, 6)
  assert.deepEqual(readFileSync(krlFile()), kept)
})
