import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createPublicKey, randomUUID, sign } from 'node:crypto'
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import type { PrivateSshd } from '../demo/private-sshd.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { acceptHostKey, makeSshMachine, runOn, type SshMachine, startCertifiedSshd } from './support/sshd.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** An sshd that knows nobody's key, and people who have none: the edge's certificate is what opens it, by each of the
 *  ways in which ssh can be told to use Postern, and with everything that rides on ssh. */

const PERSON = 'ann@mycorp.com'
/** What postern and ssh say; the login shell at the other end may have complaints of its own. */
const OURS = /^(postern|ssh|Warning|The authenticity)/m

let edge: EdgeProcess
let sshd: PrivateSshd & { principalsFile: string }
let service: ConnectedService
let operator: string

before(async () => {
  edge = await startEdge()
  operator = await makePerson(edge, 'operator@mycorp.com')
  sshd = await startCertifiedSshd(path.join(edge.dataDir, 'ca', 'ssh-user-ca.pub'))
  service = await connectService({ home: operator, port: sshd.port, name: 'ssh' })
  writeFileSync(sshd.principalsFile, `${service.host}\n`)
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await sshd?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

async function makeMachine(): Promise<SshMachine> {
  const machine = makeSshMachine(await makePerson(edge, PERSON))
  acceptHostKey(machine, service.host, sshd)
  return machine
}

async function installed(): Promise<SshMachine> {
  const machine = await makeMachine()
  const { code, stderr } = await runOn(machine, 'postern', ['ssh-config', '--install'])
  assert.equal(code, 0, stderr)
  return machine
}

function keygen(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return stdout
}

const filesOf = ({ sshFolder }: SshMachine, host = service.host) => ({
  key: path.join(sshFolder, host),
  certificate: path.join(sshFolder, `${host}-cert.pub`),
})

/** sshd's own line about the certificate that let somebody in. */
async function assertLogged(machine: SshMachine): Promise<void> {
  const serial = /Serial: (\d+)/.exec(keygen('-Lf', filesOf(machine).certificate))![1]
  await sshd.program.matches(
    new RegExp(
      `Accepted publickey for ${sshd.user} .*-CERT SHA256:\\S+ ID ${PERSON} \\(serial ${serial}\\) CA `,
    ),
  )
}

describe('a login without any key', () => {
  test('after ssh-config --install: plain ssh, its output, errors and exit code, and nothing else', async () => {
    const machine = await installed()
    const done = await runOn(machine, 'ssh', [service.host, 'printf out; printf err >&2; exit 7'])
    assert.deepEqual([done.stdout, done.code], ['out', 7], done.stderr)
    assert.match(done.stderr, /err$/)
    assert.doesNotMatch(done.stderr, OURS)
    await assertLogged(machine)
  })

  test('the two Host blocks of the tool that came first, on a terminal', async () => {
    const machine = await makeMachine()
    acceptHostKey(machine, `${service.host}.mysocket-dummy`, sshd)
    writeFileSync(
      machine.configFile,
      `Host *.edge.localhost
    ProxyCommand bash -c 'postern client ssh-keysign --host %h; ssh -tt -o IdentitiesOnly=yes -i ~/.ssh/%h %r@%h.mysocket-dummy >&2 <&1'

Host *.mysocket-dummy
    ProxyCommand postern client tls --host %h
`,
    )
    // `~` is where the user database says for ssh, so the file of known hosts is named
    const known = path.join(machine.sshFolder, 'known_hosts')
    writeFileSync(machine.configFile, `\nHost *\n    UserKnownHostsFile ${known}\n`, { flag: 'a' })
    await using shell = new Program('script', ['-qec', `ssh ${sshd.user}@${service.host}`, '/dev/null'], {
      env: machine.env,
    })
    shell.child.stdin.write('PS1="ready> "\n')
    await shell.matches(/ready> $/, 60_000)
    shell.child.stdin.write('test -t 0 && echo "sum $((40 + 2))"\n')
    await shell.matches(/^sum 42\r?$/m, 60_000)
    shell.child.stdin.write('exit\n')
    await within('the shell ends', shell.ended)
    await assertLogged(machine)
  })

  test('postern ssh: no configuration at all; arguments, input and exit code go through', async () => {
    const machine = await makeMachine()
    const args = ['ssh', '-o', 'BatchMode=yes', `${sshd.user}@${service.host}`, 'cat; echo "$0" >&2; exit 9']
    const done = await new Program('postern', args, { env: machine.env, stdin: 'hello' }).ended
    assert.deepEqual([done.stdout, done.code], ['hello', 9])
    assert.ok(!existsSync(machine.configFile))
    await assertLogged(machine)
    const upper = await runOn(machine, 'postern', ['ssh', service.host.toUpperCase(), 'echo', 'up'])
    assert.deepEqual([upper.stdout, upper.code], ['up\n', 0], upper.stderr)
  })

  test('postern ssh on a terminal: a shell, and Ctrl-C is its business', async () => {
    const machine = await makeMachine()
    const command = `postern ssh ${sshd.user}@${service.host}`
    await using shell = new Program('script', ['-qec', command, '/dev/null'], { env: machine.env })
    shell.child.stdin.write('PS1="ready> "\n')
    await shell.matches(/ready> $/, 60_000)
    shell.child.stdin.write(`sh -c 'trap "echo caught; exit" INT; echo armed; while :; do sleep 1; done'\n`)
    await shell.matches(/^armed\r?$/m, 60_000)
    shell.child.stdin.write('\u0003')
    await shell.matches(/caught\r?$/m, 60_000)
    await shell.matches(/ready> $/, 60_000)
    shell.child.stdin.write('exit 3\n')
    assert.equal((await within('the shell ends', shell.ended)).code, 3)
  })

  test('with the agent in place of files', async () => {
    const machine = await makeMachine()
    await using agent = new Program('ssh-agent', ['-D', '-a', path.join(makeTempFolder('agent'), 'a')], {})
    const socket = (await agent.matches(/SSH_AUTH_SOCK=([^;]+);/))[1]!
    const env = { ...machine.env, SSH_AUTH_SOCK: socket }
    const signed = await new Program(
      'postern',
      ['client', 'ssh-keysign', '--agent', '--host', service.host],
      {
        env,
        stdin: '',
      },
    ).ended
    assert.deepEqual([signed.code, signed.stderr], [0, ''])
    const options = ['-o', 'ProxyCommand=postern client tls --host %h']
    const known = ['-o', `UserKnownHostsFile=${path.join(machine.sshFolder, 'known_hosts')}`]
    const done = await new Program('ssh', [...options, ...known, service.host, 'echo in'], { env, stdin: '' })
      .ended
    assert.deepEqual([done.stdout, done.code], ['in\n', 0], done.stderr)
    assert.ok(!existsSync(filesOf(machine).key))
  })

  test('the certificate says what it should, and no more', async () => {
    const machine = await makeMachine()
    assert.equal((await runOn(machine, 'postern', ['client', 'ssh-keysign', '--host', service.host])).code, 0)
    const lines = keygen('-Lf', filesOf(machine).certificate).split('\n').slice(1)
    const expected = [
      /^ {8}Type: ssh-ed25519-cert-v01@openssh\.com user certificate$/,
      /^ {8}Public key: ED25519-CERT SHA256:\S+$/,
      /^ {8}Signing CA: ED25519 SHA256:\S+ \(using ssh-ed25519\)$/,
      /^ {8}Key ID: "ann@mycorp\.com"$/,
      /^ {8}Serial: \d{10,20}$/,
      /^ {8}Valid: from \S+ to \S+$/,
      /^ {8}Principals: $/,
      /^ {16}ann@mycorp\.com$/,
      new RegExp(`^ {16}${service.host.replaceAll('.', '\\.')}$`),
      /^ {16}postern_ssh_signed$/,
      /^ {8}Critical Options: \(none\)$/,
      /^ {8}Extensions: $/,
      /^ {16}permit-X11-forwarding$/,
      /^ {16}permit-agent-forwarding$/,
      /^ {16}permit-port-forwarding$/,
      /^ {16}permit-pty$/,
      /^ {16}permit-user-rc$/,
      /^$/,
    ]
    assert.equal(lines.length, expected.length, lines.join('\n'))
    for (const [at, pattern] of expected.entries()) assert.match(lines[at]!, pattern)
  })
})

describe('who gets no certificate', () => {
  test('not admitted: one line of ours, at once, and no file', async () => {
    const stranger = makeSshMachine(await makePerson(edge, 'eve@elsewhere.example'))
    await runOn(stranger, 'postern', ['ssh-config', '--install'])
    const done = await runOn(stranger, 'ssh', [service.host, 'true'])
    assert.equal(done.code, 255)
    assert.equal(done.stderr.match(/^postern: /gm)?.length, 1, done.stderr)
    assert.match(done.stderr, /^postern: .*\(ACCESS_DENIED\)\n {2}\S/)
    assert.ok(!existsSync(filesOf(stranger).key))
  })

  test('the edge is not there: one line of ours, and no file', async () => {
    const away = await startEdge()
    const machine = makeSshMachine(await makePerson(away, PERSON))
    await away.stop()
    await runOn(machine, 'postern', ['ssh-config', '--install'])
    const done = await runOn(machine, 'ssh', ['some-service.edge.localhost', 'true'])
    assert.equal(done.code, 255)
    assert.equal(done.stderr.match(/^postern: /gm)?.length, 1, done.stderr)
    assert.match(done.stderr, /EDGE_UNREACHABLE/)
    assert.ok(!existsSync(filesOf(machine, 'some-service.edge.localhost').key))
  })

  test('without a session: the line to paste', async () => {
    const machine = await installed()
    await runOn(machine, 'postern', ['logout'])
    const done = await runOn(machine, 'ssh', [service.host, 'true'])
    assert.match(done.stderr, new RegExp(`SIGN_IN_REQUIRED.*\n.*postern login --edge ${edge.origin}\n`))
  })
})

describe('what rides on ssh', () => {
  let machine: SshMachine
  let folder: string
  let source: string
  const content = Array.from({ length: 50_000 }, (_, line) => `line ${line}\n`).join('')

  before(async () => {
    machine = await installed()
    folder = makeTempFolder('files')
    source = path.join(folder, 'source')
    writeFileSync(source, content)
  })
  const target = (name: string) => path.join(folder, name)
  async function run(command: string, args: readonly string[], input = ''): Promise<void> {
    const { code, stderr } = await new Program(command, args, { env: machine.env, stdin: input }).ended
    assert.equal(code, 0, stderr)
  }

  test('scp, there and back', async () => {
    await run('scp', ['-q', '-F', machine.configFile, source, `${service.host}:${target('scp')}`])
    await run('scp', ['-q', '-F', machine.configFile, `${service.host}:${target('scp')}`, target('scp-back')])
    assert.equal(readFileSync(target('scp-back'), 'utf8'), content)
  })

  test('postern scp, without any configuration', async () => {
    const bare = await makeMachine()
    const args = ['scp', '-q', '-F', 'none', source, `${sshd.user}@${service.host}:${target('posternscp')}`]
    const { code, stderr } = await runOn(bare, 'postern', args)
    assert.equal(code, 0, stderr)
    assert.equal(readFileSync(target('posternscp'), 'utf8'), content)
  })

  test('sftp', async () => {
    const commands = `put ${source} ${target('sftp')}\n`
    await run('sftp', ['-q', '-b', '-', '-F', machine.configFile, service.host], commands)
    assert.equal(readFileSync(target('sftp'), 'utf8'), content)
  })

  test('rsync', async () => {
    await run('rsync', [source, `${service.host}:${target('rsync')}`])
    assert.equal(readFileSync(target('rsync'), 'utf8'), content)
  })

  test('git: a push and a clone', async () => {
    const [bare, work, clone] = ['bare.git', 'work', 'clone'].map(target)
    const url = `ssh://${sshd.user}@${service.host}${bare}`
    const author = ['-c', 'user.name=Ann', '-c', `user.email=${PERSON}`]
    await run('git', ['init', '-q', '--bare', '-b', 'main', bare!])
    await run('git', ['init', '-q', '-b', 'main', work!])
    await run('git', ['-C', work!, ...author, 'commit', '-q', '--allow-empty', '-m', 'first'])
    await run('git', ['-C', work!, 'push', '-q', url, 'main'])
    await run('git', ['clone', '-q', url, clone!])
    const log = spawnSync('git', ['-C', clone!, 'log', '--format=%s'], { encoding: 'utf8' })
    assert.equal(log.stdout, 'first\n')
  })

  test('port forwarding', async () => {
    const port = await findFreePort()
    const args = [
      '-N',
      '-o',
      'ExitOnForwardFailure=yes',
      '-L',
      `${port}:127.0.0.1:${sshd.port}`,
      service.host,
    ]
    await using _tunnel = new Program('ssh', args, { env: machine.env })
    await until('the forwarded port answers', () => greetingOf(port), 60_000)
  })

  test('forwarding of ports and of the agent, each switched off by the owner: refused, a command still works', async () => {
    await using other = await connectService({ home: operator, port: sshd.port, name: 'narrow' })
    writeFileSync(sshd.principalsFile, `${other.host}\n`, { flag: 'a' })
    acceptHostKey(machine, other.host, sshd)
    await using agent = new Program('ssh-agent', ['-D', '-a', path.join(makeTempFolder('agent'), 'a')], {})
    const socket = (await agent.matches(/SSH_AUTH_SOCK=([^;]+);/))[1]!
    const env = { ...machine.env, SSH_AUTH_SOCK: socket }
    const agentSeen = async () => {
      const args = ['-A', other.host, 'echo "agent:$SSH_AUTH_SOCK"']
      const { code, stdout, stderr } = await new Program('ssh', args, { env, stdin: '' }).ended
      assert.equal(code, 0, stderr)
      return stdout
    }
    const forward = async () => {
      const args = ['-N', '-L', `${await findFreePort()}:127.0.0.1:${sshd.port}`, other.host]
      return { args, port: Number(/^(\d+):/.exec(args[2]!)![1]) }
    }
    assert.match(await agentSeen(), /^agent:\/\S/)
    const permit = ['service', 'update', other.label, '--ssh-permit', 'x11-forwarding,user-rc']
    const { code, stderr } = await runPostern(permit, { home: operator })
    assert.equal(code, 0, stderr)
    // the one of before lives for some minutes
    for (const file of Object.values(filesOf(machine, other.host))) rmSync(file)
    assert.equal(await agentSeen(), 'agent:\n')
    const { args, port } = await forward()
    await using tunnel = new Program('ssh', args, { env: machine.env })
    await until('the forwarding is tried', () => {
      greetingOf(port)
      return /administratively prohibited/.test(tunnel.logs())
    })
    assert.equal(greetingOf(port), false)
  })

  test('twenty at once, of somebody who has no certificate yet', async () => {
    const fresh = await installed()
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, index) => runOn(fresh, 'ssh', [service.host, `echo ${index}`])),
    )
    for (const [index, { stdout, stderr, code }] of results.entries()) {
      assert.deepEqual([stdout, code], [`${index}\n`, 0], stderr)
      assert.doesNotMatch(stderr, OURS)
    }
  })
})

describe('the keys of a server that has no host certificate', () => {
  test('come from the record: no question; changed ones are refused until the owner accepts them', async () => {
    const userCa = path.join(edge.dataDir, 'ca', 'ssh-user-ca.pub')
    const before = await startCertifiedSshd(userCa)
    await using other = await connectService({ home: operator, port: before.port, name: 'old box' })
    writeFileSync(before.principalsFile, `${other.host}\n`)
    const machine = makeSshMachine(await makePerson(edge, PERSON))
    await runOn(machine, 'postern', ['ssh-config', '--install'])
    const ssh = () => runOn(machine, 'ssh', ['-o', 'StrictHostKeyChecking=yes', other.host, 'echo in'])
    const known = () =>
      globSync(path.join(machine.home, 'edges/*/known_hosts')).map((file) => readFileSync(file, 'utf8'))

    await reportHostKey(other.host, before.hostKey)
    const first = await ssh()
    assert.deepEqual([first.stdout, first.code], ['in\n', 0], first.stderr)
    assert.doesNotMatch(first.stderr, OURS)
    assert.ok(known()[0]!.includes(`\n${other.host} ${before.hostKey}\n`))

    await before[Symbol.asyncDispose]()
    await using now = await startCertifiedSshd(userCa, [], before.port)
    writeFileSync(now.principalsFile, `${other.host}\n`)
    assert.notEqual(now.hostKey, before.hostKey)
    await reportHostKey(other.host, now.hostKey)
    for (const file of Object.values(filesOf(machine, other.host))) rmSync(file)
    const refused = await ssh()
    assert.equal(refused.code, 255)
    assert.match(refused.stderr, /shows other host keys .*\n.*accept-host-keys.*HOST_KEY_CHANGED/)
    assert.match(refused.stderr, /REMOTE HOST IDENTIFICATION HAS CHANGED/)
    // nor does somebody who says yes to everything
    const careless = ['-o', 'StrictHostKeyChecking=accept-new', other.host, 'echo in']
    assert.equal((await runOn(machine, 'ssh', careless)).code, 255)

    const accepted = await runPostern(['service', 'accept-host-keys', other.label], { home: operator })
    assert.equal(accepted.code, 0, accepted.stderr)
    const again = await ssh()
    assert.deepEqual([again.stdout, again.code], ['in\n', 0], again.stderr)
    assert.doesNotMatch(again.stderr, OURS)
  })

  /** What a connector tells about its target; that it does so by itself is not this test's business. */
  async function reportHostKey(host: string, hostKey: string): Promise<void> {
    const slots = globSync(path.join(operator, 'edges/*/connectors/*/service.json'))
    const service = slots.find((file) => JSON.parse(readFileSync(file, 'utf8')).host === host)!
    const [file] = globSync(path.join(path.dirname(service), '*/certificate.json'))
    const { keyPem, serial } = JSON.parse(readFileSync(file!, 'utf8'))
    const claims = {
      aud: edge.origin,
      iat: Math.floor(Date.now() / 1_000),
      jti: randomUUID(),
      serial,
      hostKeys: [hostKey],
    }
    const jwk = createPublicKey(keyPem).export({ format: 'jwk' })
    const jws = signJws(keyPem, { alg: 'ES256', typ: 'postern-ssh-host-keys+jwt', jwk }, claims)
    const args = ['-s', '--cacert', edge.caFile, '--resolve', `edge.localhost:${edge.port}:127.0.0.1`]
    const sent = ['-H', 'content-type: application/json', '--data-binary', '@-']
    const told = ['-o', '/dev/null', '-w', '%{http_code}']
    const url = `${edge.origin}/v1/connectors/ssh-host-keys`
    const stdin = JSON.stringify({ jws })
    const { stdout, stderr } = await new Program('curl', [...args, ...sent, ...told, url], { stdin }).ended
    assert.match(stdout, /^(200|409)$/, stderr) // taken, or kept against the keys on record
  }
})

/** What an ssh server says first, as bash reads it. */
function greetingOf(port: number): boolean {
  const script = `exec 3<>/dev/tcp/127.0.0.1/${port} && head -c 4 <&3`
  return spawnSync('timeout', ['5', 'bash', '-c', script], { encoding: 'utf8' }).stdout === 'SSH-'
}

function signJws(key: string, header: object, claims: object): string {
  const text = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
  return `${text}.${signature.toString('base64url')}`
}
