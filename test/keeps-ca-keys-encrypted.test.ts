import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { startEdgeProgram } from '../demo/edge-program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** The keys of the CAs under a passphrase: nothing else changes, and without it nothing starts. */

const PASSPHRASE = 'correct horse battery staple'
let echo: TcpService

before(async () => {
  echo = await startEcho()
})
after(() => echo?.[Symbol.asyncDispose]())

const keysOf = ({ dataDir }: Pick<EdgeProcess, 'dataDir'>) =>
  readdirSync(path.join(dataDir, 'ca'))
    .filter((name) => name.endsWith('.key'))
    .map((name) => readFileSync(path.join(dataDir, 'ca', name), 'utf8'))
const isEncrypted = (pem: string) => pem.startsWith('-----BEGIN ENCRYPTED PRIVATE KEY-----\n')

/** Names the file in the configuration of an edge that does not run, or takes it out. */
function configure({ configFile }: EdgeProcess, ca: { key_passphrase_file?: string }): void {
  const config = JSON.parse(readFileSync(configFile, 'utf8'))
  writeFileSync(configFile, JSON.stringify({ ...config, ca }), { mode: 0o600 })
}

function writePassphrase({ dataDir }: EdgeProcess, name: string, passphrase: string): string {
  const file = path.join(dataDir, name)
  writeFileSync(file, `${passphrase}\n`, { mode: 0o600 })
  return file
}

async function start(edge: EdgeProcess): Promise<EdgeProcess> {
  const { ca } = JSON.parse(readFileSync(edge.configFile, 'utf8'))
  return startEdge({ dataDir: edge.dataDir, port: edge.port, config: { ca } })
}

/** It says why and leaves; nobody listens. */
async function refusesToStart(edge: EdgeProcess): Promise<string> {
  const { code, stdout, stderr } = await runPosternEdge(edge, ['serve'])
  assert.equal(code, 2, stdout + stderr)
  assert.doesNotMatch(stdout, /edge\.ready/)
  assert.doesNotMatch(stdout + stderr, new RegExp(PASSPHRASE))
  return stderr
}

async function reach(home: string, host: string): Promise<void> {
  await until('a flow, once the connector is back', async () => {
    const { stdout, stderr } = await runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })
    assert.match(stdout + stderr, /^hello$|SERVICE_OFFLINE|EDGE_STOPPING|CONNECTOR_LOST/)
    return stdout === 'hello'
  })
}

test('keys that are there are encrypted, changed and opened again, and everybody goes on', async () => {
  await using first = await startEdge({ keepsPort: true })
  const home = await makePerson(first, 'operator@mycorp.com')
  await using service = await connectService({ home, port: echo.port })
  await reach(home, service.host)
  assert.ok(keysOf(first).every((pem) => !isEncrypted(pem)))

  const unnamed = await runPosternEdge(first, ['ca', 'encrypt-keys'])
  assert.equal(unnamed.code, 2)
  assert.match(unnamed.stderr, /no passphrase is named \(CONFIG_INVALID\)/)
  const file = writePassphrase(first, 'ca-passphrase', PASSPHRASE)
  configure(first, { key_passphrase_file: file })
  await first.stop()
  assert.match(await refusesToStart(first), /is not encrypted, .*\(CONFIG_INVALID\)\n.*ca encrypt-keys/)
  const encrypted = await runPosternEdge(first, ['ca', 'encrypt-keys'])
  assert.equal(encrypted.code, 0, encrypted.stderr)
  assert.match(encrypted.stderr, /8 keys are encrypted, 8 were written/)
  assert.ok(keysOf(first).every(isEncrypted))
  {
    await using second = await start(first)
    await reach(home, service.host)
    await second.stop()
  }

  // a new passphrase; the old one is of no use then
  writePassphrase(first, 'old-passphrase', PASSPHRASE)
  writePassphrase(first, 'ca-passphrase', `${PASSPHRASE} again`)
  const old = ['--old-passphrase-file', path.join(first.dataDir, 'old-passphrase')]
  assert.equal((await runPosternEdge(first, ['ca', 'encrypt-keys'])).code, 2)
  assert.equal((await runPosternEdge(first, ['ca', 'encrypt-keys', ...old])).code, 0)
  {
    await using third = await start(first)
    await reach(home, service.host)
    await third.stop()
  }
  writePassphrase(first, 'ca-passphrase', PASSPHRASE)
  assert.match(await refusesToStart(first), /ca-passphrase does not open the key .*\(CA_KEY_LOCKED\)/)

  // back to plain keys only by a word for it
  writePassphrase(first, 'ca-passphrase', `${PASSPHRASE} again`)
  const plain = await runPosternEdge(first, ['ca', 'encrypt-keys', '--unsafe-decrypt'])
  assert.match(plain.stderr, /8 keys are NOT encrypted any more/)
  assert.ok(keysOf(first).every((pem) => !isEncrypted(pem)))
  configure(first, {})
  await using fourth = await start(first)
  await reach(home, service.host)
  assert.ok(fourth.pid > 0)
})

test('init with a passphrase: no key ever lies there in plain, and the edge starts', async () => {
  const folder = makeTempFolder('init')
  const configFile = path.join(folder, 'edge.yaml')
  const dataDir = path.join(folder, 'data')
  const passphraseFile = path.join(folder, 'ca-passphrase')
  const init = () =>
    runPosternEdge({ configFile }, [
      ...['init', '--domain', 'edge.localhost', '--dev-identity', '--listen', '127.0.0.1:0'],
      ...['--ca-key-passphrase-file', passphraseFile],
    ])
  const missing = await init()
  assert.equal(missing.code, 2)
  assert.match(missing.stderr, /ca-passphrase" cannot be read: there is no such file .*\(USAGE_INVALID\)/)
  writeFileSync(passphraseFile, `${PASSPHRASE}\n`, { mode: 0o644 })
  const open = await init()
  assert.equal(open.code, 2, open.stderr)
  assert.deepEqual(readdirSync(folder), ['ca-passphrase'], 'nothing was written')

  chmodSync(passphraseFile, 0o600)
  const made = await init()
  assert.equal(made.code, 0, made.stderr)
  assert.doesNotMatch(made.stderr + readFileSync(configFile, 'utf8'), new RegExp(PASSPHRASE))
  assert.equal(keysOf({ dataDir }).length, 7)
  assert.ok(keysOf({ dataDir }).every(isEncrypted))
  const { program } = await startEdgeProgram(configFile)
  await program[Symbol.asyncDispose]()
  assert.ok(keysOf({ dataDir }).every(isEncrypted))
})

test('a new edge makes its keys encrypted; a wrong passphrase, none, or a bad file stop it', async () => {
  await using plain = await startEdge()
  await plain.stop()
  const file = writePassphrase(plain, 'ca-passphrase', PASSPHRASE)
  await using edge = await startEdge({ config: { ca: { key_passphrase_file: file } } })
  assert.equal(keysOf(edge).length, 8)
  assert.ok(keysOf(edge).every(isEncrypted))
  const key = path.join(edge.dataDir, 'ca', 'client-ca.key')
  const read = spawnSync('openssl', ['pkey', '-in', key, '-passin', `file:${file}`, '-noout'])
  assert.equal(read.status, 0, read.stderr.toString())
  const list = await runPosternEdge(edge, ['ca', 'crl'])
  assert.equal(list.code, 0, list.stderr)
  const checked = await runPosternEdge(edge, ['config', 'check'])
  assert.match(checked.stdout, /ca\.key_passphrase_file +read, 28 characters/)
  await edge.stop()

  const before = keysOf(edge)
  configure(edge, {})
  assert.match(await refusesToStart(edge), /is encrypted, and no passphrase is named \(CA_KEY_LOCKED\)/)
  configure(edge, { key_passphrase_file: writePassphrase(edge, 'wrong', `not the ${PASSPHRASE}`) })
  assert.match(await refusesToStart(edge), /wrong does not open the key .*\(CA_KEY_LOCKED\)/)
  configure(edge, { key_passphrase_file: writePassphrase(edge, 'short', 'too short') })
  assert.match(await refusesToStart(edge), /ca\.key_passphrase_file: .*fewer than 16 characters/)
  configure(edge, { key_passphrase_file: path.join(edge.dataDir, 'nothing') })
  assert.match(await refusesToStart(edge), /ca\.key_passphrase_file: .*there is no such file/)
  assert.deepEqual(keysOf(edge), before)
})
