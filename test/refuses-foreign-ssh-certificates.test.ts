import assert from 'node:assert/strict'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { keygen, logInDirectly, makeKey, type OwnSshd, opens, startOwnSshd } from './support/own-sshd.ts'
import { runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** Two servers, each set up for its own service, at whose sshd people knock directly: what sshd itself refuses, when
 *  nothing of Postern stands in front of it. */

const folder = makeTempFolder('foreign')
const at = (name: string) => path.join(folder, name)

let edge: EdgeProcess
let operator: string
let one: { service: ConnectedService; sshd: OwnSshd }
let two: { service: ConnectedService; sshd: OwnSshd }

before(async () => {
  // ssh-keygen of Debian 12 reads no Ed25519 key in PEM
  edge = await startEdge({ config: { ssh: { ca_key_type: 'ecdsa' } } })
  operator = await makePerson(edge, 'operator@mycorp.com')
  const servers = await Promise.all(['one', 'two'].map(startServer))
  one = servers[0]!
  two = servers[1]!
})
after(async () => {
  for (const server of [one, two]) {
    await server?.service[Symbol.asyncDispose]()
    await server?.sshd[Symbol.asyncDispose]()
  }
  await edge?.[Symbol.asyncDispose]()
})

async function startServer(name: string) {
  const sshd = await startOwnSshd({ lines: ['LogLevel VERBOSE'] })
  writeFileSync(path.join(sshd.folder, 'authorized_keys'), '') // certificates or nothing
  const service = await connectService({ home: operator, port: sshd.port, name })
  const args = ['sshd', 'setup', '--host', service.host, '--user', sshd.user]
  const where = ['--sshd-config', sshd.configFile, '--scheduler', 'none', '--batch']
  const made = await runPostern([...args, ...where], { home: operator, timeoutMs: 180_000 })
  assert.equal(made.code, 0, made.stderr)
  const confirmed = await runPostern([...args.slice(0, 2), '--confirm', ...where.slice(0, 2)], {
    home: operator,
  })
  assert.equal(confirmed.code, 0, confirmed.stderr)
  return { service, sshd }
}

/** A certificate of the edge for `operator`, in files. */
async function signedByEdge(service: ConnectedService) {
  const args = ['client', 'ssh-keysign', '--host', service.host, '--batch']
  const { code, stderr } = await runPostern(args, { home: operator })
  assert.equal(code, 0, stderr)
  const keyFile = path.join(operator, '.ssh', service.host)
  return { keyFile, certificateFile: `${keyFile}-cert.pub` }
}

let serial = 0

/** A certificate as the edge itself would sign it, with whatever in it: the CA's key is on its disk. */
function signedBy(ca: string, { principals, validity = '-5m:+1h', id = 'ann@mycorp.com' }: Wanted) {
  const keyFile = makeKey(at(`key-${++serial}`))
  const names = principals === undefined ? [] : ['-n', principals]
  keygen('-q', '-s', ca, '-I', id, '-z', String(serial), ...names, '-V', validity, `${keyFile}.pub`)
  return { keyFile, certificateFile: `${keyFile}-cert.pub` }
}

interface Wanted {
  principals: string | undefined
  validity?: string
  id?: string
}

/** ssh-keygen reads keys of OpenSSH and PEM, for nobody but their owner. */
function edgeCa(): string {
  return path.join(edge.dataDir, 'ca', 'ssh-user-ca.key')
}

test('a certificate opens the server of its service, and no other', async () => {
  const forOne = await signedByEdge(one.service)
  assert.ok(await opens(one.sshd, forOne))
  const line = /Accepted certificate ID "operator@mycorp\.com" \(serial \d+\)/
  assert.match(one.sshd.log(), line)
  assert.ok(!(await opens(two.sshd, forOne)), 'at the other server')
  assert.ok(await opens(two.sshd, await signedByEdge(two.service)))
})

test('the lines that service show prints make a server of it, by hand', async () => {
  const { stdout, code, stderr } = await runPostern(['service', 'show', one.service.label], {
    home: operator,
  })
  assert.equal(code, 0, stderr)
  const linesUnder = (title: string) =>
    stdout
      .slice(stdout.indexOf(`\n# ${title}`) + 1)
      .split('\n# ', 1)[0]!
      .split('\n')
      .slice(1)
      .join('\n')
  writeFileSync(at('ca.pub'), linesUnder('/etc/ssh/ca.pub'))
  writeFileSync(at('authorized_principals'), linesUnder('~USER/.ssh/authorized_principals'))
  const config = linesUnder('sshd_config').replace('/etc/ssh', folder).replace('%h/.ssh', folder)
  await using sshd = await startOwnSshd({ lines: [config] })
  writeFileSync(path.join(sshd.folder, 'authorized_keys'), '')
  assert.ok(await opens(sshd, await signedByEdge(one.service)), sshd.log())
  assert.ok(!(await opens(sshd, await signedByEdge(two.service))), 'a certificate of another service')
  assert.match(
    linesUnder('known_hosts'),
    new RegExp(`^@cert-authority ${one.service.host} ecdsa-sha2-nistp256 AAAA`),
  )
})

test('it opens it for the local users named at the setup only', async () => {
  const forOne = await signedByEdge(one.service)
  for (const user of ['nobody', 'daemon', 'sshd']) {
    assert.ok(!(await opens(one.sshd, { ...forOne, user })), user)
  }
})

test('names that only look like the service are refused', async () => {
  const { host } = one.service
  const { user } = one.sshd
  assert.ok(await opens(one.sshd, signedBy(edgeCa(), { principals: host })), 'the same with the right name')
  for (const principals of [
    two.service.host,
    user,
    `${user}@partner.example`,
    `${host}.`,
    `x${host}`,
    host.toUpperCase(),
    '*',
    'operator@mycorp.com',
    'postern_ssh_signed',
  ]) {
    assert.ok(!(await opens(one.sshd, signedBy(edgeCa(), { principals }))), principals)
  }
})

test('no principals are no principals', async () => {
  assert.ok(!(await opens(one.sshd, signedBy(edgeCa(), { principals: undefined }))))
})

test('expired, not valid yet, of a foreign CA, altered', async () => {
  const { host } = one.service
  const good = { principals: host }
  assert.ok(!(await opens(one.sshd, signedBy(edgeCa(), { ...good, validity: '-2h:-1h' }))), 'expired')
  assert.ok(!(await opens(one.sshd, signedBy(edgeCa(), { ...good, validity: '+1h:+2h' }))), 'too early')
  assert.ok(!(await opens(one.sshd, signedBy(makeKey(at('foreign')), good))), 'foreign')
  const altered = signedBy(edgeCa(), good)
  const [type = '', blob = ''] = readFileSync(altered.certificateFile, 'utf8').split(' ')
  const bytes = Buffer.from(blob, 'base64')
  bytes[bytes.indexOf('ann@mycorp.com')]! ^= 2
  writeFileSync(altered.certificateFile, `${type} ${bytes.toString('base64')}\n`)
  const result = await logInDirectly(one.sshd, altered)
  assert.notEqual(result.code, 0, 'altered')
})

test('a forced command is the only one, and an address that is not named opens nothing', async () => {
  const { host, label } = two.service
  const renew = async (...settings: string[]) => {
    const update = ['service', 'update', label, '--batch', ...settings]
    const { code, stderr } = await runPostern(update, { home: operator })
    assert.equal(code, 0, stderr)
    rmSync(path.join(operator, '.ssh', host), { force: true })
    rmSync(path.join(operator, '.ssh', `${host}-cert.pub`), { force: true })
    return signedByEdge(two.service)
  }
  const forced = await logInDirectly(two.sshd, await renew('--ssh-force-command', 'echo forced'))
  assert.deepEqual([forced.code, forced.stdout], [0, 'forced\n'], forced.stderr)

  const elsewhere = await renew('--ssh-force-command', '', '--ssh-source-addresses', '192.0.2.0/24')
  assert.ok(!(await opens(two.sshd, elsewhere)))
  assert.match(two.sshd.log(), /not from a permitted source address|source address/i)
  assert.ok(await opens(two.sshd, await renew('--ssh-source-addresses', '192.0.2.0/24,127.0.0.0/8')))
  assert.ok(await opens(two.sshd, await renew('--ssh-source-addresses', '')))
})

test('somebody who was taken off the list gets no further certificate, and never one for a name like root', async () => {
  const partner = await makePerson(edge, 'root@partner.example')
  const certificate = path.join(partner, '.ssh', `${one.service.host}-cert.pub`)
  const ask = () =>
    runPostern(['client', 'ssh-keysign', '--host', one.service.host, '--batch'], { home: partner })
  const admit = async (domains: string) => {
    const update = ['service', 'update', one.service.label, '--batch', '--allowed-email-domains', domains]
    const { code, stderr } = await runPostern(update, { home: operator })
    assert.equal(code, 0, stderr)
  }
  assert.equal((await ask()).code, 5)
  await admit('mycorp.com,partner.example')
  const admitted = await ask()
  assert.equal(admitted.code, 0, admitted.stderr)
  const [, names = ''] = /Principals:\s+([\s\S]*?)\s+Critical/.exec(keygen('-L', '-f', certificate)) ?? []
  const expected = [one.service.host, 'postern_ssh_signed', 'root@partner.example']
  assert.deepEqual(names.split(/\s+/).sort(), expected.sort())
  await admit('mycorp.com')
  rmSync(certificate)
  assert.equal((await ask()).code, 5)
})
