import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { analyze, verifyUnit } from './support/verify-unit.ts'

/** The units of packaging/systemd: systemd's own opinion of them, and an edge and a connector that are given their files
 *  as the units give them. */

const UNITS = fileURLToPath(new URL('../packaging/systemd', import.meta.url))
const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))
const POSTERN = fileURLToPath(new URL('../packages/cli/bin/postern.js', import.meta.url))
const NAMES = ['postern-connect@.service', 'postern-edge.service']

const readUnit = (name: string) => readFileSync(path.join(UNITS, name), 'utf8')

/** Every value of a key, in the order of the file. */
function valuesOf(unit: string, key: string): string[] {
  return [...unit.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map((match) => match[1]!)
}

/** A folder with this text as the unit, its program being one that is there. */
function stageUnit(name: string, text: string): string {
  const folder = makeTempFolder('units')
  const file = path.join(folder, name.replace('@.', '@build-7.'))
  writeFileSync(file, text.replace(/^ExecStart=\/usr\/local\/bin\/[\w-]+/m, 'ExecStart=/bin/true'))
  return file
}

function verify(name: string, text: string): string {
  return verifyUnit(stageUnit(name, text))
}

test('there is a unit for the edge and one for connectors, and both are checked here', () => {
  assert.deepEqual(readdirSync(UNITS).sort(), NAMES)
})

for (const name of NAMES) {
  describe(name, () => {
    test('systemd-analyze verify prints nothing, and would tell an unknown key', () => {
      assert.equal(verify(name, readUnit(name)), '')
      const misspelt = readUnit(name).replace('ProtectHome=', 'ProtectHoome=')
      assert.match(verify(name, misspelt), /Unknown key.*'ProtectHoome'/)
    })

    test('systemd-analyze security finds it as tight as it gets with Node', () => {
      const file = path.join(UNITS, name)
      const { status, stdout } = analyze('security', '--offline=yes', '--threshold=40', file)
      assert.equal(status, 0, stdout)
      const [, exposure] = /Overall exposure level for \S+: (\d+\.\d)/.exec(stdout) ?? []
      assert.ok(Number(exposure) <= 2, stdout)
      const open = readUnit(name)
        .replace(/^(Protect|Private|Restrict|SystemCall|Capability).*$/gm, '')
        .replace('DynamicUser=yes', '')
      assert.notEqual(analyze('security', '--offline=yes', '--threshold=40', stageUnit(name, open)).status, 0)
    })

    test('has no capability but that for port 443, which the edge alone needs', () => {
      const wanted = name === 'postern-edge.service' ? 'CAP_NET_BIND_SERVICE' : ''
      assert.deepEqual(valuesOf(readUnit(name), 'CapabilityBoundingSet'), [wanted])
      assert.deepEqual(valuesOf(readUnit(name), 'AmbientCapabilities'), wanted === '' ? [] : [wanted])
    })
  })
}

test('the edge runs on what the unit gives it: a folder of read-only credentials and a state folder', async () => {
  const unit = readUnit('postern-edge.service')
  const credentials = makeTempFolder('credentials')
  const state = path.join(makeTempFolder('state'), 'postern-edge')
  mkdirSync(state, { mode: 0o700 })
  const config = {
    domain: 'edge.localhost',
    listen: '127.0.0.1:0',
    data_dir: state,
    identity: {
      issuer: 'https://idp.mycorp.example',
      client_id: 'edge',
      client_secret_file: 'client-secret',
      email_domains: ['mycorp.example'],
    },
  }
  const sources: Record<string, string> = {
    'edge.yaml': JSON.stringify(config),
    'client-secret': 'kept by root',
  }
  for (const value of valuesOf(unit, 'LoadCredential')) {
    const [id = '', source] = value.split(':')
    assert.equal(source, `/etc/postern-edge/${id}`)
    assert.ok(sources[id], `${id} is unknown here`)
    writeFileSync(path.join(credentials, id), sources[id])
    chmodSync(path.join(credentials, id), 0o440)
  }
  chmodSync(credentials, 0o550)

  const [command = ''] = valuesOf(unit, 'ExecStart')
  const [program, ...args] = command.replaceAll('%d', credentials).split(' ')
  assert.equal(program, '/usr/local/bin/postern-edge')
  const env = { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', CREDENTIALS_DIRECTORY: credentials }
  await using edge = new Program(process.execPath, [POSTERN_EDGE, ...args], { env, cwd: state, stdin: '' })
  await edge.matches(/ready at https:\/\/edge\.localhost:\d+/)
  for (const name of ['ca', 'edge.sqlite']) assert.ok(readdirSync(state).includes(name))
  assert.deepEqual(readdirSync(credentials).sort(), ['client-secret', 'edge.yaml'])
  assert.equal((await edge.stop('SIGTERM')).code, 0)
  chmodSync(credentials, 0o700)
})

test('a connector is admitted by the token that the unit gives it, and starts again when that is gone', async () => {
  const unit = readUnit('postern-connect@.service')
  await using edge = await startEdge()
  const owner = await makePerson(edge, 'operator@mycorp.com')
  const claimed = await connectService({ home: owner, port: 9, name: 'ssh of build-7' })
  await claimed.stop()
  const made = await runPostern(['service', 'enroll-token', claimed.label], { home: owner })
  assert.equal(made.code, 0, made.stderr)

  // root's file where there is one, else the value of SetCredential: what systemd.exec(5) says of the two
  assert.deepEqual(valuesOf(unit, 'LoadCredential'), ['enroll-token:/etc/postern-connect/%i.token'])
  const [fallback = ''] = valuesOf(unit, 'SetCredential')
  assert.match(fallback, /^enroll-token:./)
  const credentials = makeTempFolder('credentials')
  const state = makeTempFolder('state')
  const run = async (credential: string) => {
    const file = path.join(credentials, 'enroll-token')
    rmSync(file, { force: true })
    writeFileSync(file, credential)
    chmodSync(file, 0o440)
    const options = `--name 'ssh of build-7' --port 9 --edge ${edge.origin} --ca-file ${edge.caFile}`
    const [command = ''] = valuesOf(unit, 'ExecStart')
    const [program, ...args] = splitWords(
      command.replaceAll('%d', credentials).replace('$CONNECT_OPTIONS', options),
    )
    assert.equal(program, '/usr/local/bin/postern')
    const [home] = valuesOf(unit, 'Environment')
    assert.equal(home, 'POSTERN_HOME=%S/postern-connect/%i')
    const env = { PATH: '/usr/bin:/bin', POSTERN_HOME: state, CREDENTIALS_DIRECTORY: credentials }
    await using connector = new Program(process.execPath, [POSTERN, ...args], { env, cwd: state, stdin: '' })
    await connector.output(() => (connector.stdout.includes('"event":"ready"') ? true : undefined))
    assert.equal((await connector.stop('SIGTERM')).code, 0)
    return connector.stdout
  }
  assert.match(await run(made.stdout), /"event":"enrolled"/)
  assert.doesNotMatch(await run(fallback.slice('enroll-token:'.length)), /"event":"enrolled"/)
})

/** As systemd splits a command line, as far as this unit needs it. */
function splitWords(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare!)
}
