import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type SshAuthorityList, signSshAuthorityList } from '@postern/shared/certs/ssh-authority-list'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import { createCa, issueLeaf } from '../packages/cli/test/certificates.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { keygen, logInDirectly, type OwnSshd, opens, startOwnSshd } from './support/own-sshd.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { until } from './support/until.ts'

/** New CAs of ssh take over: servers and clients follow by themselves, and believe nobody whom the old one does not vouch
 *  for. */

let edge: EdgeProcess
let operator: string
let sshd: OwnSshd
let service: ConnectedService
const open = new AsyncDisposableStack()

before(async () => {
  edge = open.use(await startEdge({ config: { ssh: { ttl: '30m' } } }))
  operator = await makePerson(edge, 'operator@mycorp.com')
  sshd = open.use(await startOwnSshd())
  service = open.use(await connectService({ home: operator, port: sshd.port, name: 'ssh' }))
  const wanted = ['--host', service.host, '--user', sshd.user, '--scheduler', 'none', '--batch']
  const where = ['--sshd-config', sshd.configFile]
  const made = await postern(['sshd', 'setup', ...wanted, ...where, '--confirm-within', '1h'])
  assert.equal(made.code, 0, made.stderr)
  const kept = await postern(['sshd', 'setup', '--confirm', ...where])
  assert.equal(kept.code, 0, kept.stderr)
  writeFileSync(path.join(sshd.folder, 'authorized_keys'), '') // certificates or nothing
})
after(() => open.disposeAsync())

const postern = (args: readonly string[], home = operator) => runPostern(args, { home, timeoutMs: 180_000 })
const refresh = () => postern(['sshd', 'refresh', '--sshd-config', sshd.configFile])
const rotate = (...args: string[]) =>
  runPosternEdge(edge, ['ca', 'rotate', '--kind', 'ssh-user', 'ssh-host', ...args])
const ours = (name: string) => path.join(sshd.folder, 'postern', name)
const linesIn = (file: string) => readFileSync(file, 'utf8').trim().split('\n')
const reloads = () => sshd.log().split('Received SIGHUP').length - 1

interface Person {
  home: string
  keyFile: string
  certificateFile: string
  serial: string
  /** `SHA256:…` */
  ca: string
}

/** Somebody with a certificate by whoever signs now. */
async function sign(email: string): Promise<Person> {
  const home = await makePerson(edge, email)
  const { code, stderr } = await postern(['client', 'ssh-keysign', '--host', service.host, '--batch'], home)
  assert.equal(code, 0, stderr)
  const keyFile = path.join(home, '.ssh', service.host)
  const certificateFile = `${keyFile}-cert.pub`
  const shown = keygen('-L', '-f', certificateFile)
  const serial = /Serial: (\d+)/.exec(shown)![1]!
  return { home, keyFile, certificateFile, serial, ca: /Signing CA: \S+ (\S+)/.exec(shown)![1]! }
}

/** Whether ssh takes the server for this service by what the person's postern knows of hosts, and by nothing else. */
async function knowsServer({ home, ...login }: Person): Promise<boolean> {
  const [knownHosts] = globSync(path.join(home, 'edges/**/known_hosts'))
  const known = ['StrictHostKeyChecking=yes', `UserKnownHostsFile=${knownHosts}`]
  const { code } = await logInDirectly(sshd, {
    ...login,
    options: [...known, `HostKeyAlias=${service.host}`],
  })
  return code === 0
}

const hostCertificate = () => ours('host-certificates/ssh_host_ed25519_key-cert.pub')
const hostCaShown = () => /Signing CA: \S+ (\S+)/.exec(keygen('-L', '-f', hostCertificate()))![1]!

/** Moves the time at which the new CAs begin to sign: what has passed since the command is what this test has not. */
async function beginToSign(): Promise<void> {
  const file = path.join(edge.dataDir, 'ca/generations.json')
  const kinds = JSON.parse(readFileSync(file, 'utf8')) as Record<string, { signsFrom: number }[]>
  for (const kind of ['ssh-user', 'ssh-host']) kinds[kind]!.at(-1)!.signsFrom = Date.now() - 120_000
  const changes = edge.logs().split('"ca.changed"').length
  writeFileSync(file, JSON.stringify(kinds))
  await until('the edge knows', () => edge.logs().split('"ca.changed"').length > changes)
}

test('too short a time for servers to learn of it is refused', async () => {
  const { code, stderr } = await rotate('--signs-in', '0s')
  assert.equal(code, 2)
  assert.match(stderr, /servers learn of a new ssh-user CA before it signs/)
})

test('servers and clients follow, both count during the overlap, and then the old ones are nobody’s', async () => {
  const ann = await sign('ann@mycorp.com')
  assert.ok(await opens(sshd, ann))
  assert.ok(await knowsServer(ann))
  const [first] = linesIn(ours('user-ca.pub'))
  const slept = readFileSync(ours('state.json'), 'utf8')

  // known before it signs
  const rotated = await rotate()
  assert.equal(rotated.code, 0, rotated.stderr)
  await until('the edge knows', () => edge.logs().includes('"ca.changed"'))
  const before = reloads()
  const followed = await refresh()
  assert.equal(followed.code, 0, followed.stderr)
  assert.match(followed.stderr, /learned 1 new CA/)
  const [old, second] = linesIn(ours('user-ca.pub'))
  assert.equal(old, first)
  assert.ok(second)
  const bob = await sign('bob@mycorp.com')
  assert.equal(bob.ca, ann.ca)
  assert.ok(await opens(sshd, bob))
  const show = await runPosternEdge(edge, ['ca', 'ssh', 'show', '--json'])
  assert.deepEqual(JSON.parse(show.stdout).sshUserCas, [old, second])
  assert.equal(JSON.parse(show.stdout).sshUserCa, old)

  // the new ones sign: sshd has not been told, and lets both in
  await beginToSign()
  const carl = await sign('carl@mycorp.com')
  const dave = await sign('dave@mycorp.com')
  assert.notEqual(carl.ca, ann.ca)
  for (const person of [ann, carl]) assert.ok(await opens(sshd, person))
  assert.equal(reloads(), before)

  // servers show what the new one has signed; whoever asked during the overlap knows both
  const hostCaBefore = hostCaShown()
  const renewed = await refresh()
  assert.equal(renewed.code, 0, renewed.stderr)
  assert.match(renewed.stderr, /renewed 2 host certificates/)
  assert.notEqual(hostCaShown(), hostCaBefore)
  await until('sshd has read its files again', () => reloads() > before)
  await until('the server is known by the new one', () => knowsServer(bob))
  assert.ok(await knowsServer(dave))

  // what is revoked is revoked, whoever signed it
  for (const { serial } of [ann, carl]) {
    const revoked = await postern(['revoke', '--certificate', serial, '--batch'])
    assert.equal(revoked.code, 0, revoked.stderr)
  }
  assert.equal((await refresh()).code, 0)
  for (const person of [ann, carl]) assert.ok(!(await opens(sshd, person)))
  for (const person of [bob, dave]) assert.ok(await opens(sshd, person))

  // the overlap is over
  const ended = await rotate('--unsafe-end-overlap')
  assert.equal(ended.code, 0, ended.stderr)
  const changes = edge.logs().split('"ca.changed"').length
  await until('the edge knows', () => edge.logs().split('"ca.changed"').length >= changes)
  await until('the server drops it', async () => /dropped 1 CA/.test((await refresh()).stderr))
  assert.deepEqual(linesIn(ours('user-ca.pub')), [second])
  assert.ok(!(await opens(sshd, bob)))
  for (const person of [carl, dave]) assert.equal(await opens(sshd, person), person === dave)

  // a server that slept through all of it believes nobody new
  const now = readFileSync(ours('state.json'), 'utf8')
  writeFileSync(ours('state.json'), slept)
  const late = await refresh()
  assert.equal(late.code, 5)
  assert.match(late.stderr, /\(SSH_CA_UNKNOWN\)\n.*postern sshd setup --undo/)
  assert.deepEqual(linesIn(ours('user-ca.pub')), [first])
  assert.ok(!(await opens(sshd, dave)))
  writeFileSync(ours('state.json'), now)
  assert.equal((await refresh()).code, 0)
  assert.ok(await opens(sshd, dave))
})

interface CaKey {
  key: KeyObject
  line: string
}

function caKey(key: KeyObject): CaKey {
  return { key, line: formatSshPublicKey(toSshPublicKey(key)) }
}

/** Of the edge. */
function keysOf(kind: 'ssh-user' | 'ssh-host'): CaKey[] {
  const folder = path.join(edge.dataDir, 'ca')
  const kinds = JSON.parse(readFileSync(path.join(folder, 'generations.json'), 'utf8'))
  return kinds[kind].map(({ name }: { name: string }) =>
    caKey(createPrivateKey(readFileSync(path.join(folder, `${name}.key`), 'utf8'))),
  )
}

interface ToldLists {
  user: readonly string[]
  isKrlDamaged: boolean
}

/** Somebody in the edge's place who has the CA of its certificate: the server trusts them as far as TLS goes. */
async function startImpostor(lists: ToldLists): Promise<{ origin: string; caPem: string }> {
  const ca = createCa('stolen')
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const { pem } = issueLeaf(ca, { spki, dnsNames: [edge.domain], usage: 'serverAuth' })
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const at = ['--cacert', edge.caFile, '--connect-to', `${edge.domain}::127.0.0.1:${edge.port}`]
  const asked = spawnSync('curl', ['-sS', '--fail', ...at, `${edge.origin}/v1/ssh/cas`], { encoding: 'utf8' })
  const { host } = JSON.parse(asked.stdout)
  const server = open.adopt(
    createServer({ key, cert: pem }, (request, response) => {
      if (request.url?.startsWith('/v1/ssh/krl')) {
        return response.end(lists.isKrlDamaged ? 'damaged' : readFileSync(ours('revoked.krl')))
      }
      response.end(JSON.stringify({ user: lists.user, host }))
    }),
    (opened) => void opened.close(),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return { origin: `https://${edge.domain}:${port}`, caPem: ca.certificatePem }
}

test('who has stolen the CA of TLS makes nobody a CA of ssh', async () => {
  const [old, current] = keysOf('ssh-user')
  const [, host] = keysOf('ssh-host')
  const thief = caKey(generateKeyPairSync('ed25519').privateKey)
  assert.deepEqual(linesIn(ours('user-ca.pub')), [current!.line])
  const list = (by: CaKey, change: Partial<SshAuthorityList> = {}, ...more: CaKey[]) => {
    const named = [...new Set([by, ...more, thief])].map(({ line: ca }) => ({
      ...{ ca, signsFrom: 0, trustedUntil: null },
    }))
    const said = { kind: 'user' as const, domain: edge.domain, authorities: named, ...change }
    return signSshAuthorityList(said, { type: 'ssh-ed25519', key: by.key })
  }
  const lists: ToldLists = { user: [], isKrlDamaged: false }
  const impostor = await startImpostor(lists)
  const state = JSON.parse(readFileSync(ours('state.json'), 'utf8'))
  writeFileSync(ours('state.json'), JSON.stringify({ ...state, edge: { ...state.edge, ...impostor } }))
  const forged = {
    'of nobody': [],
    'by the thief': [list(thief), list(thief, {}, current!)],
    'by the old CA, which is over': [list(old!), list(old!, {}, current!)],
    'by the CA for hosts': [list(host!), list(host!, {}, current!)],
    'for hosts': [list(current!, { kind: 'host' })],
    'of another edge': [list(current!, { domain: 'edge.elsewhere.org' })],
    'with a byte changed': [list(current!).replace(/.$/, (last) => (last === 'A' ? 'Q' : 'A'))],
    malformed: ['x', '..', list(current!).split('.').slice(0, 2).join('.')],
  }
  for (const [what, user] of Object.entries(forged)) {
    lists.user = user
    const { code, stderr } = await refresh()
    assert.equal(code, 5, `${what}: ${stderr}`)
    assert.match(stderr, /\(SSH_CA_UNKNOWN\)/, what)
    assert.deepEqual(linesIn(ours('user-ca.pub')), [current!.line], what)
  }
  // what was wrong with them is what is right here; but nobody is let in before it is known what is revoked
  const damaged = async () => {
    const { code, stderr } = await refresh()
    assert.equal(code, 1, stderr)
    assert.match(stderr, /\(KRL_INVALID\)/)
  }
  lists.user = [list(current!)]
  lists.isKrlDamaged = true
  await damaged()
  assert.deepEqual(linesIn(ours('user-ca.pub')), [current!.line])
  lists.isKrlDamaged = false
  assert.equal((await refresh()).code, 0)
  assert.deepEqual(linesIn(ours('user-ca.pub')), [current!.line, thief.line])
  // who is out is out, whatever is known of the revoked
  lists.user = [list(thief)]
  lists.isKrlDamaged = true
  await damaged()
  assert.deepEqual(linesIn(ours('user-ca.pub')), [thief.line])
})
