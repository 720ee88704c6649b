import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { keygen, logInDirectly, makeKey, type OwnSshd, startOwnSshd } from './support/own-sshd.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** Who the server is, without a question: by a host certificate, or by the record of the keys that it shows. */

let edge: EdgeProcess
let operator: string
let sshd: OwnSshd
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  operator = await makePerson(edge, 'operator@mycorp.com')
  sshd = await startOwnSshd()
  service = await connectService({ home: operator, port: sshd.port, name: 'ssh', args: ['--ssh'] })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await sshd?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const hostCa = () => readFileSync(path.join(edge.dataDir, 'ca', 'ssh-host-ca.pub'), 'utf8').trim()

/** A first connection as `host`, by somebody who knows nobody but the CA, and answers no question. */
function connectAs(host: string, ca: string) {
  const knownHosts = path.join(makeTempFolder('known'), 'known_hosts')
  writeFileSync(knownHosts, `@cert-authority *.${edge.domain} ${ca}\n`)
  const options = ['StrictHostKeyChecking=yes', `UserKnownHostsFile=${knownHosts}`, `HostKeyAlias=${host}`]
  return logInDirectly(sshd, { keyFile: sshd.keyFile, options })
}

test('a first connection asks nothing, and a wrong host is refused', async () => {
  const before = await connectAs(service.host, hostCa())
  assert.notEqual(before.code, 0)
  assert.match(before.stderr, /Host key verification failed/)

  const args = ['sshd', 'setup', '--host', service.host, '--user', sshd.user]
  const where = ['--sshd-config', sshd.configFile, '--scheduler', 'none', '--confirm-within', '1h', '--batch']
  const made = await runPostern([...args, ...where], { home: operator, timeoutMs: 180_000 })
  assert.equal(made.code, 0, made.stderr)
  const certificate = path.join(sshd.folder, 'postern', 'host-certificates', 'ssh_host_ed25519_key-cert.pub')
  const names = /Principals:\s+([\s\S]*?)\s+Critical/.exec(keygen('-L', '-f', certificate))?.[1]
  assert.equal(names, service.host)

  const right = await connectAs(service.host, hostCa())
  assert.deepEqual([right.code, right.stdout], [0, 'in\n'], right.stderr)
  const wrongHost = await connectAs(`another-name-1.${edge.domain}`, hostCa())
  assert.notEqual(wrongHost.code, 0)
  assert.match(wrongHost.stderr, /name is not a listed principal|Host key verification failed/)
  const foreign = readFileSync(`${makeKey(path.join(makeTempFolder('ca'), 'ca'))}.pub`, 'utf8').trim()
  assert.notEqual((await connectAs(service.host, foreign)).code, 0)
})

test('host certificates are renewed when half of their life is over, and sshd shows the new ones', async () => {
  const file = path.join(sshd.folder, 'postern', 'host-certificates', 'ssh_host_ed25519_key-cert.pub')
  const old = readFileSync(file, 'utf8')
  const refresh = () => runPostern(['sshd', 'refresh', '--sshd-config', sshd.configFile], { home: operator })
  await refresh()
  assert.equal(readFileSync(file, 'utf8'), old, 'not before its time')
  writeFileSync(file, 'cut off in the middle')
  const { stderr } = await refresh()
  assert.match(stderr, /renewed 1 host certificates/)
  assert.notEqual(readFileSync(file, 'utf8'), old)
  assert.equal((await connectAs(service.host, hostCa())).code, 0)
})

test('the connector puts the keys of its target on record, and a changed key waits for the owner', async () => {
  const { keys } = await service.event('host-keys.reported')
  assert.equal(keys, 2)
  const show = async () => {
    const { stdout } = await runPostern(['service', 'show', service.label, '--json', '--batch'], {
      home: operator,
    })
    return JSON.parse(stdout).service.sshHostKeys as { keys: string[]; pending: string[] }
  }
  const first = await show()
  assert.deepEqual([first.keys.length, first.pending], [2, []])

  await service.stop()
  await using other = await startOwnSshd()
  await using moved = await connectService({ home: operator, port: other.port, name: 'ssh', args: ['--ssh'] })
  const failed = await moved.event('host-keys.failed')
  assert.equal(failed.code, 'HOST_KEY_CHANGED')
  const second = await show()
  assert.deepEqual(second.keys, first.keys)
  assert.equal(second.pending.length, 2)
})

test('a server follows the edge to the CA that the one it knows has signed', async () => {
  const stateFile = path.join(sshd.folder, 'postern', 'state.json')
  const believed = () => JSON.parse(readFileSync(stateFile, 'utf8')).edge.caPem.match(/BEGIN/g).length
  const refresh = () => runPostern(['sshd', 'refresh', '--sshd-config', sshd.configFile], { home: operator })
  const rotate = async (...args: string[]) => {
    const { code, stderr } = await runPosternEdge(edge, ['ca', 'rotate', '--kind', 'edge', ...args])
    assert.equal(code, 0, stderr)
    return stderr
  }
  const learns = (count: number) =>
    until(`the server believes ${count}`, async () => {
      const { code, stderr } = await refresh()
      assert.equal(code, 0, stderr)
      return believed() === count
    })
  assert.equal(believed(), 1)
  await rotate('--signs-in', '1s')
  await learns(2)
  await until('the new one signs', async () => (await rotate('--unsafe-end-overlap')).includes('1 CAs'))
  await learns(1)
  const after = await refresh()
  assert.equal(after.code, 0, after.stderr)
})
