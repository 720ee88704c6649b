import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { loadAuthorities } from './ca/authorities.ts'
import { loadConfig } from './config/load.ts'
import { listKeys } from './config/schema.ts'
import { runProgram } from './program.ts'

const scratch = mkdtempSync(path.join(tmpdir(), 'postern-edge-program-'))
after(() => rmSync(scratch, { recursive: true, force: true }))
const newFolder = () => mkdtempSync(path.join(scratch, 'cwd-'))

/** Runs a command line in this process, as main.ts would. */
async function run(cwd: string, ...args: string[]) {
  const printed = { stdout: '', stderr: '' }
  const collect = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      printed[name] += text
    },
  })
  const parts = {
    stdout: collect('stdout'),
    stderr: collect('stderr'),
    cwd,
    takeStopSignal: () => AbortSignal.abort(),
  }
  const exitCode = await runProgram(args, parts)
  return { exitCode, ...printed }
}

const UPSTREAM = [
  '--issuer',
  'https://idp.mycorp.com',
  '--client-id',
  'edge',
  '--client-secret-file',
  'secret',
]

describe('postern-edge init', () => {
  it('writes a configuration that loads, and keys, for its owner only', async () => {
    const cwd = newFolder()
    const { stderr } = await run(cwd, 'init', '--domain', 'edge.mycorp.com', ...UPSTREAM)
    const file = path.join(cwd, 'edge.yaml')
    assert.equal(statSync(file).mode & 0o777, 0o600)
    assert.match(readFileSync(file, 'utf8'), /^# The edge of Postern/)
    writeFileSync(path.join(cwd, 'secret'), 's3cret', { mode: 0o600 })
    const config = loadConfig(file)
    assert.equal(config.domain, 'edge.mycorp.com')
    assert.equal(config.identity.kind === 'upstream' && config.identity.clientSecret, 's3cret')
    await loadAuthorities(config.dataDir)
    assert.match(stderr, /register https:\/\/edge\.mycorp\.com\/login\/callback/)
    assert.match(stderr, /postern-edge serve --config edge\.yaml/)
  })

  it('writes a dev configuration that listens on this machine', async () => {
    const cwd = newFolder()
    await run(
      cwd,
      'init',
      '--domain',
      'edge.localhost',
      '--dev-identity',
      '--config',
      'x/e.yaml',
      '--data-dir',
      'd',
    )
    const config = loadConfig(path.join(cwd, 'x/e.yaml'))
    assert.deepEqual(config.listen, { host: '127.0.0.1', port: 8_443 })
    assert.equal(config.dataDir, path.join(cwd, 'd'))
  })

  it('never overwrites a configuration or keys', async () => {
    const cwd = newFolder()
    const init = (...more: string[]) =>
      run(cwd, 'init', '--domain', 'edge.localhost', '--dev-identity', ...more)
    await init()
    const before = readFileSync(path.join(cwd, 'edge.yaml'), 'utf8')
    await assert.rejects(init('--listen', '127.0.0.1:1'), {
      code: 'USAGE_INVALID',
      message: /is not overwritten/,
    })
    assert.equal(readFileSync(path.join(cwd, 'edge.yaml'), 'utf8'), before)
    await assert.rejects(init('--config', 'other.yaml'), { message: /has certificate authorities already/ })
    assert.equal(existsSync(path.join(cwd, 'other.yaml')), false)
  })

  it('says all that is wrong with its options, and writes nothing', async () => {
    const cwd = newFolder()
    await assert.rejects(
      run(cwd, 'init', '--domain', 'local\nhost', '--listen', '443', ...UPSTREAM),
      (error: { code: string; message: string }) => {
        assert.equal(error.code, 'USAGE_INVALID')
        assert.match(error.message, /^--domain "local\\nhost" is not a domain name.*\n--listen "443" is not/)
        return true
      },
    )
    await assert.rejects(run(cwd, 'init', '--domain', 'a.b.com'), {
      message: 'it is not said who signs people in',
    })
    await assert.rejects(run(cwd, 'init', '--domain', 'a.b.com', '--dev-identity', '--listen', ':443'), {
      message: /--dev-identity .* believes any address/,
    })
    await assert.rejects(run(cwd, 'init', '--domain', 'a.b.com', '--dev-identity', '--issuer', 'https://x'), {
      code: 'commander.conflictingOption',
    })
    assert.deepEqual(readdirSync(cwd), [])
  })
})

describe('postern-edge config check', () => {
  it('shows every setting and no secret', async () => {
    const cwd = newFolder()
    await run(cwd, 'init', '--domain', 'edge.mycorp.com', ...UPSTREAM)
    writeFileSync(path.join(cwd, 'secret'), 'hunter2', { mode: 0o600 })
    const file = path.join(cwd, 'edge.yaml')
    const { stdout, stderr } = await run(cwd, 'config', 'check', '--config', file)
    assert.match(stdout, /^domain +edge\.mycorp\.com$/m)
    assert.match(stdout, /^certificates\.session +12h$/m)
    assert.match(stdout, /^listen +every address, port 443$/m)
    assert.doesNotMatch(stdout, /hunter2/)
    assert.match(stderr, /nobody may expose a service/)
    const json = JSON.parse((await run(cwd, 'config', 'check', '--config', file, '--json')).stdout)
    assert.equal(json['certificates.ttl'], '5m')
    const shown = Object.keys(json)
    const hidden = listKeys().filter(
      (key) => !shown.some((other) => key === other || key.startsWith(`${other}.`)),
    )
    // parts of others, and what there is none of beside a provider and without metrics
    assert.deepEqual(hidden, [
      'store_password_file',
      'identity.dev',
      'identity.unsafe_dev_identity',
      'metrics.unsafe_other_addresses',
    ])
    chmodSync(path.join(cwd, 'secret'), 0o644)
    await assert.rejects(run(cwd, 'config', 'check', '--config', file), { code: 'CONFIG_INVALID' })
  })
})

describe('postern-edge ca ssh show', () => {
  it('prints the lines that sshd and ssh take, of the keys that sign', async () => {
    const cwd = newFolder()
    await run(cwd, 'init', '--domain', 'edge.localhost', '--dev-identity')
    const show = ['ca', 'ssh', 'show', '--config', path.join(cwd, 'edge.yaml')]
    const { stdout } = await run(cwd, ...show)
    const lineOf = (kind: string) => {
      const [type, blob] = readFileSync(path.join(cwd, `data/ca/ssh-${kind}-ca.pub`), 'utf8').split(' ')
      return `${type} ${blob}`
    }
    const [user, host] = [lineOf('user'), lineOf('host')]
    assert.equal(
      stdout,
      `# users: TrustedUserCAKeys of sshd\n${user} postern-user-ca\n` +
        `# hosts: known_hosts of clients\n@cert-authority *.edge.localhost ${host}\n`,
    )
    assert.deepEqual(JSON.parse((await run(cwd, ...show, '--json')).stdout), {
      sshUserCa: user,
      sshHostCa: host,
      sshUserCas: [user],
      sshHostCas: [host],
    })
    // each half as the file it is for
    writeFileSync(path.join(cwd, 'ca.pub'), stdout.split('\n').slice(0, 2).join('\n'))
    writeFileSync(path.join(cwd, 'known_hosts'), stdout.split('\n').slice(2).join('\n'))
    const listed = execFileSync('ssh-keygen', ['-l', '-f', path.join(cwd, 'ca.pub')], { encoding: 'utf8' })
    assert.match(listed, /^256 SHA256:\S+ postern-user-ca \(ED25519\)$/m)
    const asked = ['-F', 'any-label-1.edge.localhost', '-f', path.join(cwd, 'known_hosts')]
    assert.match(execFileSync('ssh-keygen', asked, { encoding: 'utf8' }), /found: line 2 CA/)
  })
})

describe('help', () => {
  for (const command of [['init'], ['serve'], ['dev'], ['config', 'check']]) {
    it(`of ${command.join(' ')} has examples`, async () => {
      const printed: string[] = []
      const output = { write: (text: string) => void printed.push(text) }
      const parts = { stdout: output, stderr: output, cwd: '/', takeStopSignal: () => AbortSignal.abort() }
      await assert.rejects(runProgram([...command, '--help'], parts), { code: 'commander.helpDisplayed' })
      assert.match(printed.join(''), new RegExp(`Examples:\\n  \\$ postern-edge ${command.join(' ')}`))
    })
  }
})

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url))

function start(...args: string[]) {
  const child = spawn(process.execPath, ['--conditions=postern-source', MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exited = once(child, 'exit').then(([code]) => code as number)
  const lines = (stream: NodeJS.ReadableStream) => createInterface({ input: stream })[Symbol.asyncIterator]()
  return { child, exited, stdout: lines(child.stdout), stderr: lines(child.stderr) }
}

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const { done, value } = await lines.next()
  assert.ok(!done, 'the program ended before it said more')
  return value
}

describe('the program', () => {
  it('runs dev until SIGTERM, says where, and leaves nothing behind', async () => {
    const edge = start('dev', '--json')
    const ready = JSON.parse(await nextLine(edge.stdout))
    assert.match(ready.edge, /^https:\/\/edge\.localhost:\d+$/)
    assert.match(readFileSync(ready.caFile, 'utf8'), /BEGIN CERTIFICATE/)
    edge.child.kill('SIGTERM')
    assert.equal(await edge.exited, 0)
    assert.equal(existsSync(ready.caFile), false)
  })

  it('serves a configuration: one line for people on stderr, JSON lines on stdout', async () => {
    const cwd = newFolder()
    await run(cwd, 'init', '--domain', 'edge.localhost', '--dev-identity', '--listen', '127.0.0.1:0')
    const edge = start('serve', '--config', path.join(cwd, 'edge.yaml'))
    assert.match(await nextLine(edge.stderr), /^postern-edge: ready at https:\/\/edge\.localhost:\d+$/)
    const line = JSON.parse(await nextLine(edge.stdout))
    assert.equal(typeof line.event, 'string')
    assert.equal(line.level, 'info')
    edge.child.kill('SIGINT')
    assert.equal(await edge.exited, 0)
    const modes = readdirSync(path.join(cwd, 'data'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => statSync(path.join(entry.parentPath, entry.name)).mode & 0o077)
    assert.ok(modes.every((mode) => mode === 0))
  })

  it('explains a bad configuration in sentences and exits 2', async () => {
    const file = path.join(newFolder(), 'bad.yaml')
    writeFileSync(file, 'domian: x\n')
    const edge = start('serve', '--config', file)
    const text: string[] = []
    for await (const line of { [Symbol.asyncIterator]: () => edge.stderr }) text.push(line)
    assert.equal(await edge.exited, 2)
    assert.equal(text[0], `postern-edge: ${file} has 3 problems (CONFIG_INVALID)`)
    assert.match(text.join('\n'), /line 1: domian: is not a key, did you mean domain\?/)
    assert.match(text.at(-1)!, /^ {2}correct the file and try/)
  })

  for (const [args, problem, nextStep] of [
    [['serve', '--config', 'x', '--nope'], "unknown option '--nope'", /--help/],
    [['swerve'], "unknown command 'swerve'", /^ {2}did you mean serve\?$/],
    [['serve'], "required option '--config <file>' not specified", /--help/],
    [['serve', '--config', 'x', '--log-level', 'loud'], /'--log-level <level>' argument 'loud'/, /--help/],
    [['config', 'check', 'x', '--config', 'x'], /too many arguments/, /--help/],
  ] as const) {
    it(`refuses \`${args.join(' ')}\` with code, next step and exit 2`, async () => {
      const edge = start(...args)
      const told = /^postern-edge: (.+) \(USAGE_INVALID\)$/.exec(await nextLine(edge.stderr))
      if (typeof problem === 'string') assert.equal(told?.[1], problem)
      else assert.match(told?.[1] ?? '', problem)
      assert.match(await nextLine(edge.stderr), nextStep)
      assert.ok((await edge.stderr.next()).done, 'it is told once')
      assert.equal(await edge.exited, 2)
    })
  }

  it('shows the help where a command is missing, and exits 2', async () => {
    for (const args of [[], ['config'], ['ca', 'ssh']]) {
      const edge = start(...args)
      assert.match(await nextLine(edge.stderr), /^Usage: postern-edge /)
      assert.equal(await edge.exited, 2, args.join(' '))
    }
  })
})
