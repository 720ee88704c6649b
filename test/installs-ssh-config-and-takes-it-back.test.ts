import assert from 'node:assert/strict'
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { makeSshMachine, runOn, type SshMachine } from './support/sshd.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** `postern ssh-config`: what it does to the person's own file, what `ssh -G` makes of the result, and that nothing in
 *  a host name or a path gets to a shell. */

const HOST = 'crimson-thunder-8434.edge.localhost'

let edge: EdgeProcess
let signedIn: string

before(async () => {
  edge = await startEdge()
  signedIn = await makePerson(edge, 'ann@mycorp.com')
})
after(() => edge?.[Symbol.asyncDispose]())

/** A machine of somebody who is signed in, with nothing in `~/.ssh`. */
function makeMachine(home = makeTempFolder('home')): SshMachine {
  cpSync(signedIn, home, { recursive: true })
  const machine = makeSshMachine(home)
  rmSync(machine.sshFolder, { recursive: true })
  return machine
}

async function sshConfig(machine: SshMachine, option: string) {
  const done = await runOn(machine, 'postern', ['ssh-config', option])
  assert.equal(done.code, 0, done.stderr)
  return done
}

/** `ssh -G`: setting → value. Signs nothing, as in `postern doctor`. */
async function settingsOf(machine: SshMachine, host: string): Promise<Map<string, string>> {
  const env = { ...machine.env, POSTERN_SSH_LOOK_ONLY: '1' }
  const { code, stdout, stderr } = await runOn({ ...machine, env }, 'ssh', ['-G', '--', host])
  assert.equal(code, 0, stderr)
  return new Map(stdout.split('\n').map((line) => line.split(/ (.*)/s, 2) as [string, string]))
}

describe('the person’s own file', () => {
  const TEXTS: Record<string, [text: string, mode: number]> = {
    'with comments and hosts': ['# mine\nHost old\n    User me\n\nHost *\n    Compression yes\n', 0o644],
    'without a new line at its end': ['Host old\n    User me', 0o600],
    'with the line ends of Windows': ['Host old\r\n    User me\r\n', 0o600],
    'that is empty': ['', 0o640],
    'that is one new line': ['\n', 0o600],
    'with bytes that are no UTF-8': ['Host old # \u00ff\u00fe\n', 0o400],
  }
  for (const [what, [text, mode]] of Object.entries(TEXTS)) {
    test(`${what}: included at the top, and byte for byte as before`, async () => {
      const machine = makeMachine()
      const bytes = Buffer.from(text, 'latin1')
      mkdirSync(machine.sshFolder, { mode: 0o700 })
      writeFileSync(machine.configFile, bytes)
      chmodSync(machine.configFile, mode)
      for (let round = 0; round < 2; round++) await sshConfig(machine, '--install')
      const installed = readFileSync(machine.configFile)
      const line = installed.subarray(0, installed.indexOf('\n') + 1)
      assert.match(line.toString(), text.includes('\r\n') ? /^Include \S+\r\n$/ : /^Include \S+\n$/)
      assert.deepEqual(installed.subarray(line.length), bytes)
      assert.equal(statSync(machine.configFile).mode & 0o777, mode)
      assert.match((await settingsOf(machine, HOST)).get('proxycommand')!, /postern client tls --host/)

      await sshConfig(machine, '--uninstall')
      assert.deepEqual(readFileSync(machine.configFile), bytes)
      assert.equal(statSync(machine.configFile).mode & 0o777, mode)
      assert.deepEqual(readdirSync(machine.sshFolder), ['config'])
    })
  }

  test('that was not there, and its folder neither: gone again', async () => {
    const machine = makeMachine()
    await sshConfig(machine, '--install')
    for (const [file, mode] of [
      [machine.sshFolder, 0o700],
      [machine.configFile, 0o600],
    ] as const) {
      assert.equal(statSync(file).mode & 0o777, mode)
    }
    await sshConfig(machine, '--uninstall')
    assert.ok(!existsSync(machine.sshFolder))
    assert.match((await sshConfig(machine, '--uninstall')).stderr, /nothing to take away/)
    assert.ok(!existsSync(machine.sshFolder))
  })

  test('that was not there, and that the person has written into since: their part stays', async () => {
    const machine = makeMachine()
    mkdirSync(machine.sshFolder)
    await sshConfig(machine, '--install')
    writeFileSync(machine.configFile, `# above\n${readFileSync(machine.configFile, 'utf8')}Host new\n`)
    await sshConfig(machine, '--install')
    await sshConfig(machine, '--uninstall')
    assert.equal(readFileSync(machine.configFile, 'utf8'), '# above\nHost new\n')
  })

  test('that is a link into another folder: the link stays, what it leads to changes', async () => {
    const machine = makeMachine()
    const [dotfiles, text] = [makeTempFolder('dotfiles'), 'Host old\n']
    const file = path.join(dotfiles, 'ssh-config')
    writeFileSync(file, text)
    chmodSync(file, 0o640)
    mkdirSync(machine.sshFolder)
    symlinkSync(file, machine.configFile)
    await sshConfig(machine, '--install')
    assert.equal(readlinkSync(machine.configFile), file)
    assert.match(readFileSync(file, 'utf8'), /^Include .*\nHost old\n$/)
    await sshConfig(machine, '--uninstall')
    assert.equal(readlinkSync(machine.configFile), file)
    assert.equal(readFileSync(file, 'utf8'), text)
    assert.equal(lstatSync(file).mode & 0o777, 0o640)
    assert.deepEqual(readdirSync(dotfiles), ['ssh-config'])
  })

  test('that cannot be changed, or a file of ours that is somebody else’s: nothing is written', async () => {
    for (const spoil of [
      (machine: SshMachine) => mkdirSync(machine.configFile),
      (machine: SshMachine) => symlinkSync('nowhere', machine.configFile),
      (machine: SshMachine) => writeFileSync(path.join(machine.sshFolder, 'postern.conf'), 'Host mine\n'),
    ]) {
      const machine = makeMachine()
      mkdirSync(machine.sshFolder)
      spoil(machine)
      const before = readdirSync(machine.sshFolder)
      const { code, stderr } = await runOn(machine, 'postern', ['ssh-config', '--install'])
      assert.equal(code, 1)
      assert.match(stderr, /SSH_CONFIG_INVALID|SSH_FILE_FOREIGN/)
      assert.deepEqual(readdirSync(machine.sshFolder), before)
    }
  })
})

describe('what ssh makes of it', () => {
  test('services go through postern, with a certificate only; other hosts are left alone', async () => {
    const machine = makeMachine()
    mkdirSync(machine.sshFolder)
    writeFileSync(machine.configFile, 'Host *\n    User me\n    Compression yes\n')
    const otherBefore = await settingsOf(machine, 'other.example')
    await sshConfig(machine, '--install')
    const settings = await settingsOf(machine, HOST.replace('crimson', 'Crimson'))
    assert.equal(settings.get('proxycommand'), `postern client tls --host '%h'`)
    assert.equal(settings.get('identityfile'), `${machine.sshFolder}/%h`)
    assert.equal(settings.get('certificatefile'), `${machine.sshFolder}/%h-cert.pub`)
    assert.equal(settings.get('identitiesonly'), 'yes')
    const [edgeFolder] = readdirSync(path.join(machine.home, 'edges'))
    assert.equal(
      settings.get('userknownhostsfile'),
      `${machine.sshFolder}/known_hosts ${machine.home}/edges/${edgeFolder}/known_hosts`,
    )
    assert.deepEqual([settings.get('user'), settings.get('compression')], ['me', 'yes'])
    assert.deepEqual(await settingsOf(machine, 'other.example'), otherBefore)
    // --print shows the same
    const { stdout } = await sshConfig(machine, '--print')
    const own = path.join(machine.sshFolder, 'postern.conf')
    assert.ok(readFileSync(own, 'utf8').endsWith(stdout))
    const printed = await runOn(machine, 'postern', ['ssh-config', '--print', '--json'])
    const { include, ...rest } = JSON.parse(printed.stdout)
    assert.deepEqual(rest, { file: own, text: stdout, includedBy: machine.configFile })
    assert.equal(readFileSync(machine.configFile, 'utf8').split('\n')[0], include)
    const alone = await runOn(machine, 'postern', ['ssh-config', '--uninstall', '--json'])
    assert.deepEqual([alone.code, alone.stdout], [2, ''])
    assert.match(alone.stderr, /--json belongs to --print \(USAGE_INVALID\)\n {2}\S/)
    assert.ok(existsSync(own))
  })

  test('doctor finds it well', async () => {
    const machine = makeMachine()
    const state = async () => {
      const { stdout } = await runOn(machine, 'postern', ['doctor', '--json'])
      const checks = JSON.parse(stdout).checks as { name: string; state: string; message: string }[]
      return checks.find(({ name }) => name === 'ssh config')!
    }
    assert.equal((await state()).state, 'warn')
    await sshConfig(machine, '--install')
    const { state: now, message } = await state()
    assert.equal(now, 'ok', message)
    // looking has signed nothing
    assert.deepEqual(readdirSync(machine.sshFolder).sort(), ['config', 'postern.conf'])
  })

  test('spaces, quotes and signs in the paths', async () => {
    const machine = makeMachine(path.join(makeTempFolder('home'), "Ann's [own] 100% home"))
    await sshConfig(machine, '--install')
    const settings = await settingsOf(machine, HOST)
    assert.match(settings.get('proxycommand')!, /postern client tls/)
    // ssh shows what it has read, before it puts the host in
    assert.equal(settings.get('identityfile'), `${machine.sshFolder.replace('%', '%%')}/%h`)
    await sshConfig(machine, '--uninstall')
    assert.ok(!existsSync(machine.sshFolder))
  })
})

describe('host names that are traps', () => {
  const HOSTS = [
    '../x.edge.localhost',
    '../../etc/passwd.edge.localhost',
    '$(touch pwned).edge.localhost',
    '`touch pwned`.edge.localhost',
    ';touch pwned;.edge.localhost',
    "';touch pwned;'.edge.localhost",
    "'$(touch pwned)'.edge.localhost",
    '"$(touch pwned)".edge.localhost',
    '|touch pwned|.edge.localhost',
    '&touch pwned&.edge.localhost',
    '\ntouch pwned\n.edge.localhost',
    'a\\.edge.localhost',
    '%h.edge.localhost',
    '-oProxyCommand=touch$IFS.pwned.edge.localhost',
    'a.b.edge.localhost',
  ]
  test('reach no shell, make no file, and ssh ends', async () => {
    const machine = makeMachine()
    await sshConfig(machine, '--install')
    const cwd = makeTempFolder('cwd')
    const before = readdirSync(machine.sshFolder)
    for (const host of HOSTS) {
      for (const args of [
        ['ssh', '--', host, 'true'],
        ['postern', 'ssh', '--', host, 'true'],
      ]) {
        const command = `cd ${cwd} && exec "$@"`
        const done = await runOn(machine, 'sh', ['-c', command, 'sh', ...args])
        assert.notEqual(done.code, 0, `${args.join(' ')}\n${done.stdout}`)
        assert.deepEqual(readdirSync(cwd), [], args.join(' '))
        assert.deepEqual(readdirSync(machine.sshFolder), before, args.join(' '))
      }
    }
  })
})
