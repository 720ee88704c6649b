import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { connectTo, readToEnd } from './support/listen.ts'
import { runPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { AT_ONCE_MS, until, within } from './support/until.ts'

/** Programs of others, with what docs/workloads.md tells their people to write. */

const GUIDE = readFileSync(new URL('../docs/workloads.md', import.meta.url), 'utf8')
const NAME = 'carbon-relay-3'
/** From a revocation to the end of each flow, by the edge's own records: both come from its one clock, and nothing else
 *  of this machine has to have its turn between them. */
const PROMISED_MS = 1_000
const folder = makeTempFolder('workloads')

let edge: EdgeProcess
let echo: TcpService
let service: ConnectedService
let operator: string

before(async () => {
  edge = await startEdge()
  echo = await startEcho()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: echo.port })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** A block of the guide, as somebody would copy it. */
function copyFromGuide(language: string): string {
  const [, block] = new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(GUIDE) ?? []
  assert.ok(block, `docs/workloads.md has no ${language}`)
  return block
}

async function postern(...args: string[]) {
  const { code, stdout, stderr } = await runPostern(args, { home: operator })
  assert.equal(code, 0, stderr)
  return stdout
}

async function issue(out: string, ...more: string[]) {
  const place = path.join(folder, out)
  const printed = await postern(
    ...['certificate', 'issue', '--name', NAME, '--host', service.label, '--out', place, '--json', ...more],
  )
  return { place, ...(JSON.parse(printed) as { serial: string; renewUrl: string; notAfter: number }) }
}

async function apply(rule: string): Promise<void> {
  const file = path.join(folder, 'policy.yaml')
  writeFileSync(file, `service: ${service.label}\nallow: [${rule}]\n`)
  await postern('policy', 'apply', '-f', file)
}

interface ClosedFlow {
  at: number
  code: string
  flowId: string
}

/** What the edge wrote down about the ends of these flows. */
function recordedEnds(flowIds: readonly string[]): Promise<ClosedFlow[]> {
  return until('the ends are recorded', async () => {
    const lines = (await postern('audit', 'list', '--json', '--type', 'flow.closed')).trim().split('\n')
    const closed = lines.map((line) => JSON.parse(line) as ClosedFlow)
    const found = closed.filter(({ flowId }) => flowIds.includes(flowId))
    return found.length === flowIds.length && found
  })
}

const ADMITTED = `{ workloads: [${NAME}] }`

/** The guide's script: says each line to the service, and prints what comes back. */
function startPython(place: string): Program {
  const script = path.join(folder, 'carbon.py')
  // names below localhost are not found by every resolver
  writeFileSync(script, copyFromGuide('python').replace('((host, port))', "(('127.0.0.1', port))"))
  return new Program('python3', [script, service.host, String(edge.port), place])
}

async function pythonSays(place: string): Promise<string> {
  await using python = startPython(place)
  python.child.stdin.end('carbon.load 1\n')
  return (await python.ended).stdout
}

/** The guide's stunnel, with the places of this test. */
async function startStunnel(place: string): Promise<Program & { port: number }> {
  const port = await findFreePort()
  const file = path.join(folder, `stunnel-${port}.conf`)
  const service_ = copyFromGuide('ini')
    .replaceAll('crimson-thunder-8434.edge.mycorp.com', service.host)
    .replace(`${service.host}:443`, `127.0.0.1:${edge.port}`)
    .replace('127.0.0.1:2003', `127.0.0.1:${port}`)
    .replaceAll('/etc/stunnel/carbon-relay-3', place)
  writeFileSync(file, `foreground = yes\npid =\n${service_}`)
  const program = new Program('stunnel', [file])
  await program.matches(/Configuration successful/)
  return Object.assign(program, { port })
}

/** What comes back from the service, before it ends. */
async function stunnelSays(port: number): Promise<string> {
  const socket = await connectTo(port)
  socket.end('carbon.load 2\n')
  return (await readToEnd(socket)).bytes.toString()
}

test('the files are ready to be used, and the key is its owner’s alone', async () => {
  const { place } = await issue('files')
  assert.deepEqual(readdirSync(place).sort(), [
    ...['ca.pem', 'certificate.pem', 'chain.pem', 'client.pem', 'key.pem'],
  ])
  for (const name of ['key.pem', 'client.pem'])
    assert.equal(statSync(path.join(place, name)).mode & 0o777, 0o600)
  const again = await runPostern(
    ['certificate', 'issue', '--name', NAME, '--host', service.label, '--out', place],
    { home: operator },
  )
  assert.equal(again.code, 2, 'what is there is never overwritten')
  assert.match(again.stderr, /it is there already \(USAGE_INVALID\)/)
})

test('with --csr the key stays where it was made', async () => {
  const place = path.join(folder, 'csr')
  const request = new Program('openssl', [
    ...['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=whatever/O=else'],
    ...['-keyout', `${place}.key`, '-out', `${place}.csr`],
  ])
  assert.equal((await request.ended).code, 0, request.stderr)
  await issue('csr', '--csr', `${place}.csr`)
  assert.equal(existsSync(path.join(place, 'key.pem')), false)
  const text = new Program('openssl', [
    'x509',
    '-in',
    path.join(place, 'certificate.pem'),
    '-noout',
    '-subject',
  ])
  assert.match((await text.ended).stdout, /CN = carbon-relay-3\n$/, 'nothing of the request but its key')
})

test('somebody who is no operator, or not the owner, makes none', async () => {
  const home = await makePerson(edge, 'dev@mycorp.com')
  const out = path.join(folder, 'foreign')
  const { code, stderr } = await runPostern(
    ['certificate', 'issue', '--name', NAME, '--host', service.label, '--out', out],
    { home },
  )
  assert.notEqual(code, 0)
  assert.match(stderr, /OPERATOR_REQUIRED|SERVICE_UNKNOWN/)
  assert.equal(existsSync(out), false, 'and nothing of it is left')
})

test('stunnel and a Python script: nothing without a rule, everything with it, nothing after a revocation', async () => {
  const { place, serial } = await issue('both')
  await using stunnel = await startStunnel(place)
  const seen = echo.connections.length
  await apply('')
  assert.equal(await pythonSays(place), '')
  assert.equal(await stunnelSays(stunnel.port), '')
  assert.equal(echo.connections.length, seen, 'the service hears nothing of it')

  await apply(ADMITTED)
  assert.equal(await pythonSays(place), 'carbon.load 1\n')
  assert.equal(await stunnelSays(stunnel.port), 'carbon.load 2\n')

  await using python = startPython(place)
  python.child.stdin.write('live\n')
  await python.matches(/^live$/m)
  const socket = await connectTo(stunnel.port)
  socket.write('live')
  await once(socket, 'readable')
  const { flows } = JSON.parse(await postern('flow', 'list', '--json')) as {
    flows: { id: string; email: string }[]
  }
  const theirs = flows.filter(({ email }) => email === `workload:${NAME}`).map(({ id }) => id)
  assert.equal(theirs.length, 2)

  const receipt = JSON.parse(await postern('certificate', 'revoke', serial, '--json'))
  assert.deepEqual([receipt.tlsCertificates, receipt.flows], [1, 2])
  const ends = await recordedEnds(theirs)
  assert.deepEqual(
    ends.map(({ code }) => code),
    ['FLOW_REVOKED', 'FLOW_REVOKED'],
  )
  for (const { at } of ends) {
    const delayMs = at - receipt.at.tlsCertificates
    assert.ok(delayMs >= 0 && delayMs <= PROMISED_MS, `${delayMs} ms after the revocation was written`)
  }
  for (const { ended } of echo.connections.slice(-2)) {
    assert.equal(await within('the service is told', ended, AT_ONCE_MS), 'reset')
  }
  await within('the flow of stunnel ends', readToEnd(socket), AT_ONCE_MS)
  // the script notices when it speaks again; what it says reaches nobody
  python.child.stdin.end('late\n')
  const { stdout } = await within('the script ends', python.ended, AT_ONCE_MS)
  assert.doesNotMatch(stdout, /late/)
  assert.equal(await pythonSays(place), '')
  assert.equal(await stunnelSays(stunnel.port), '')

  const audit = await postern('audit', 'list', '--json', '--type', 'revocation.done')
  assert.match(audit, new RegExp(`"certificateSerial":\\s*"${serial}"`))
})

test('the line of the guide renews it with curl, again where its answer was lost, and ends the copy of a key', async () => {
  await apply(ADMITTED)
  const { place, serial, renewUrl } = await issue('renewed', '--ttl', '7d')
  const script = path.join(folder, 'renew.sh')
  writeFileSync(script, copyFromGuide('sh'))
  const renew = () => new Program('sh', [script, place, renewUrl]).ended
  const client = path.join(place, 'client.pem')
  const stolen = readFileSync(client)

  const first = await renew()
  assert.equal(first.code, 0, first.stderr)
  assert.equal(await pythonSays(place), 'carbon.load 1\n')
  assert.deepEqual(
    readdirSync(place).filter((name) => /next|draft/.test(name)),
    [],
  )
  const newest = JSON.parse(await postern('certificate', 'show', NAME, '--json').catch(() => '{}'))
  assert.notEqual(newest.serial, serial)

  // the answer was lost: the former certificate asks again, with the key that it had made
  const lost = readFileSync(client)
  writeFileSync(path.join(place, 'next-key.pem'), lost.toString().split('-----BEGIN CERTIFICATE-----')[0]!)
  writeFileSync(client, stolen)
  const repeated = await renew()
  assert.equal(repeated.code, 0, repeated.stderr)
  assert.equal(await pythonSays(place), 'carbon.load 1\n')

  // a thief has no such key
  await using live = startPython(place)
  live.child.stdin.write('live\n')
  await live.matches(/^live$/m)
  writeFileSync(client, stolen)
  const thief = await renew()
  assert.equal(thief.code, 1)
  assert.match(thief.stderr, /CERTIFICATE_SUPERSEDED/)
  live.child.stdin.end('late\n')
  assert.doesNotMatch((await within('the flow ends', live.ended, AT_ONCE_MS)).stdout, /late/)
  writeFileSync(client, lost)
  assert.equal(await pythonSays(place), '')
})

test('one that the edge does not know, or that has run out, is told so when it asks for a renewal', async () => {
  const { place } = await issue('foreign-ca')
  const [key, certificate] = [path.join(place, 'key.pem'), path.join(place, 'certificate.pem')]
  const request = path.join(folder, 'foreign-ca.csr')
  const openssl = async (...args: string[]) => {
    const { code, stderr } = await new Program('openssl', args).ended
    assert.equal(code, 0, stderr)
  }
  await openssl('req', '-new', '-key', key, '-subj', '/CN=nobody', '-out', request)
  const names = path.join(folder, 'foreign-ca.ext')
  const { hostname } = new URL(edge.origin)
  writeFileSync(names, `subjectAltName = URI:postern://${hostname}/service/x/workload/${NAME}\n`)
  const renew = async (days: string) => {
    const signing = ['-signkey', key, '-days', days, '-extfile', names, '-out', certificate]
    await openssl('x509', '-req', '-in', request, ...signing)
    writeFileSync(
      path.join(place, 'client.pem'),
      readFileSync(key, 'utf8') + readFileSync(certificate, 'utf8'),
    )
    const { code, stderr } = await runPostern(['certificate', 'renew', place], { home: operator })
    assert.equal(code, 5, stderr)
    assert.match(stderr, /^ {2}ask the owner of the service for a new one: postern certificate issue$/m)
    return stderr
  }
  assert.match(await renew('30'), /closed the connection without a word.* \(CERTIFICATE_REFUSED\)/)
  assert.match(await renew('-1'), /the certificate ended on .* \(CERTIFICATE_EXPIRED\)/)
})

test('the line of the guide and postern take turns, also where the other one was cut off', async () => {
  await apply(ADMITTED)
  const { place, renewUrl } = await issue('by-turns')
  const script = path.join(folder, 'renew-by-turns.sh')
  writeFileSync(script, copyFromGuide('sh'))
  const file = (name: string) => path.join(place, name)
  const read = (name: string) => readFileSync(file(name), 'utf8')
  const turns: [string, () => Promise<unknown>][] = [
    ['guide', async () => assert.equal((await new Program('sh', [script, place, renewUrl]).ended).code, 0)],
    ['postern', () => postern('certificate', 'renew', place)],
  ]
  for (const [who, renew] of [...turns, ...turns]) {
    const before = read('client.pem')
    await renew()
    const [key, certificate] = [read('key.pem'), read('certificate.pem')]
    assert.notEqual(read('client.pem'), before, who)
    assert.ok(read('client.pem').startsWith(key + certificate), who)
    assert.ok(read('chain.pem').startsWith(certificate), who)
    assert.deepEqual(
      ['client.pem', 'key.pem', 'certificate.pem', 'chain.pem'].map(
        (name) => statSync(file(name)).mode & 0o777,
      ),
      [0o600, 0o600, 0o644, 0o644],
    )
    assert.equal(await pythonSays(place), 'carbon.load 1\n', who)
    // the next one finds what is left of a renewal that ended right after its certificate was in place
    writeFileSync(file('next-key.pem'), key)
    writeFileSync(file('certificate.pem'), before.slice(before.indexOf('-----BEGIN CERT')))
    writeFileSync(file('key.pem'), before)
  }
})

test('postern renews what is in a folder, without anybody signed in', async () => {
  await apply(ADMITTED)
  const { place, serial } = await issue('by-postern')
  await postern('certificate', 'renew', place)
  assert.equal(await pythonSays(place), 'carbon.load 1\n')
  const list = JSON.parse(await postern('certificate', 'list', '--json')).certificates as { serial: string }[]
  assert.ok(!list.some((one) => one.serial === serial), 'the list has the newest of each')
  // on the program's own machine, which knows no edge
  const stranger = (folder: string, ...args: string[]) =>
    runPostern(['certificate', 'renew', folder, ...args], { home: makeTempFolder('stranger') })
  const first = readFileSync(path.join(place, 'client.pem'), 'utf8')
  const elsewhere = await stranger(place, '--edge', edge.origin)
  assert.equal(elsewhere.code, 0, elsewhere.stderr)
  assert.notEqual(readFileSync(path.join(place, 'client.pem'), 'utf8'), first)
  const nothing = makeTempFolder('nothing')
  for (const name of ['key.pem', 'certificate.pem']) writeFileSync(path.join(nothing, name), 'nothing')
  assert.match((await stranger(nothing)).stderr, /holds no certificate of an edge \(USAGE_INVALID\)/)
  // who is refused keeps what they have
  const before = readFileSync(path.join(place, 'client.pem'), 'utf8')
  const newest = /serial=(\w+)/i.exec(
    (
      await new Program('openssl', ['x509', '-in', path.join(place, 'certificate.pem'), '-noout', '-serial'])
        .ended
    ).stdout,
  )![1]!
  await postern('revoke', '--certificate', newest)
  const { code, stderr } = await runPostern(['certificate', 'renew', place], { home: operator })
  assert.equal(code, 5)
  assert.match(stderr, /the certificate of carbon-relay-3 was revoked \(CERTIFICATE_REVOKED\)/)
  assert.equal(readFileSync(path.join(place, 'client.pem'), 'utf8'), before)
  await until('the audit log knows who was refused', async () =>
    /workload:carbon-relay-3/.test(await postern('audit', 'list', '--json', '--type', 'certificate.refused')),
  )
})
