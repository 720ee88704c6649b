import assert from 'node:assert/strict'
import { existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { makeKey, type OwnSshd, opens, startOwnSshd } from './support/own-sshd.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

let edge: EdgeProcess
let operator: string
let service: ConnectedService

before(async () => {
  edge = await startEdge()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: 9, name: 'ssh' })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** Everything of a folder that a person could notice: names, bytes, modes, owners. */
function photograph(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name !== 'sshd.pid')
    .sort()
    .map((name) => {
      const file = path.join(folder, name)
      const { mode, uid, gid } = lstatSync(file)
      const isFile = lstatSync(file).isFile()
      return `${name} ${mode.toString(8)} ${uid}:${gid} ${isFile ? readFileSync(file, 'hex') : ''}`
    })
}

const setupArguments = (sshd: OwnSshd, ...args: string[]) => [
  ...['sshd', 'setup', '--sshd-config', sshd.configFile, '--scheduler', 'none', '--batch'],
  ...args,
]

const setup = (sshd: OwnSshd, ...args: string[]) =>
  runPostern(setupArguments(sshd, ...args), { home: operator, timeoutMs: 180_000 })

const wanted = (sshd: OwnSshd) => ['--host', service.host, '--user', sshd.user]

const restarts = (sshd: OwnSshd) => sshd.log().split('Received SIGHUP').length - 1

describe('one sshd each', { concurrency: 3 }, () => {
  for (const withoutInclude of [false, true]) {
    const where = withoutInclude
      ? 'with a line of its own in sshd_config'
      : 'in the folder that sshd_config includes'
    test(`sets up ${where}, stays when confirmed, and goes without a trace`, async () => {
      await using sshd = await startOwnSshd({ withoutInclude })
      const untouched = photograph(sshd.folder)
      const { code, stderr } = await setup(sshd, ...wanted(sshd), '--principal', 'breakglass')
      assert.equal(code, 0, stderr)
      assert.match(stderr, /postern sshd setup --confirm/)
      assert.equal(restarts(sshd), 1)
      assert.equal(existsSync(path.join(sshd.dropIns, '00-postern.conf')), !withoutInclude)
      const principals = path.join(sshd.folder, 'postern', 'principals', sshd.user)
      assert.equal(readFileSync(principals, 'utf8'), `${service.host}\nbreakglass\n`)
      assert.ok(await opens(sshd, sshd), 'the old key opens it')

      const confirmed = await setup(sshd, '--confirm')
      assert.equal(confirmed.code, 0, confirmed.stderr)
      const again = await setup(sshd, ...wanted(sshd))
      assert.equal(again.code, 1)
      assert.match(again.stderr, /is set up for \S+ already \(SSHD_SETUP_FAILED\)/)

      const undone = await setup(sshd, '--undo')
      assert.equal(undone.code, 0, undone.stderr)
      assert.deepEqual(photograph(sshd.folder), untouched)
      assert.equal(restarts(sshd), 2)
      assert.ok(await opens(sshd, sshd), 'the old key opens it still')
      assert.match((await setup(sshd, '--undo')).stderr, /nothing to take back/)
    })
  }

  test('an unconfirmed change is taken back, also when the terminal and the command are gone', async () => {
    await using sshd = await startOwnSshd()
    const untouched = photograph(sshd.folder)
    const args = setupArguments(sshd, ...wanted(sshd), '--confirm-within', '4s')
    await using program = spawnPostern(args, { home: operator, pty: true })
    await program.matches(/without that it is taken back/, 120_000)
    program.signal('SIGHUP')
    program.signal('SIGKILL')
    await until('it is taken back', () => restarts(sshd) === 2)
    await until('our folder is gone', () => !existsSync(path.join(sshd.folder, 'postern')))
    assert.deepEqual(photograph(sshd.folder), untouched)
    assert.ok(await opens(sshd, sshd))
  })

  test('a setup that dies before sshd was told leaves nothing behind either', async () => {
    await using sshd = await startOwnSshd()
    const untouched = photograph(sshd.folder)
    const gone = path.join(makeTempFolder('flag'), 'gone')
    const hangs = `test -e ${gone} || sleep 600`
    const args = setupArguments(sshd, ...wanted(sshd), '--confirm-within', '4s', '--reload-command', hangs)
    await using program = spawnPostern(args, { home: operator })
    await program.matches(/reloading sshd/, 120_000)
    program.signal('SIGKILL')
    await program.ended
    writeFileSync(gone, '')
    await until('it is taken back', () => !existsSync(path.join(sshd.folder, 'postern')))
    assert.deepEqual(photograph(sshd.folder), untouched)
  })

  test('what an administrator has written meanwhile survives the undo', async () => {
    await using sshd = await startOwnSshd({ withoutInclude: true })
    assert.equal((await setup(sshd, ...wanted(sshd))).code, 0)
    const before = readFileSync(sshd.configFile, 'utf8')
    writeFileSync(sshd.configFile, `${before}\nLogLevel VERBOSE\n`)
    assert.equal((await setup(sshd, '--undo')).code, 0)
    const after = readFileSync(sshd.configFile, 'utf8')
    assert.match(after, /LogLevel VERBOSE\n$/)
    assert.doesNotMatch(after, /postern\/sshd\.conf/)
  })
})

describe('nothing is changed', { concurrency: 3 }, () => {
  const refusal = async (sshd: OwnSshd, message: RegExp, ...args: string[]) => {
    const untouched = photograph(sshd.folder)
    const { code, stderr } = await setup(sshd, ...(args.length > 0 ? args : wanted(sshd)))
    assert.equal(code, 1, stderr)
    assert.match(stderr, message)
    assert.deepEqual(photograph(sshd.folder), untouched)
    assert.equal(restarts(sshd), 0)
  }

  test('where the configuration does not validate', async () => {
    await using sshd = await startOwnSshd()
    writeFileSync(path.join(sshd.dropIns, '50-typo.conf'), 'PermitRotLogin no\n')
    await refusal(sshd, /sshd does not accept .*PermitRotLogin/)
  })

  test('where somebody else names CAs, principals or revoked keys', async () => {
    await using sshd = await startOwnSshd()
    writeFileSync(path.join(sshd.dropIns, '50-ca.conf'), 'TrustedUserCAKeys /etc/ssh/their-ca.pub\n')
    await refusal(sshd, /50-ca\.conf line 1 sets trustedusercakeys already/)
  })

  test('where the CA that is named is not the edge’s', async () => {
    await using sshd = await startOwnSshd()
    const untouched = photograph(sshd.folder)
    const foreign = `${makeKey(path.join(makeTempFolder('ca'), 'ca'))}.pub`
    const refused = await setup(sshd, ...wanted(sshd), '--user-ca', foreign)
    assert.equal(refused.code, 5)
    assert.match(
      refused.stderr,
      /does not vouch for the edge's \(SSH_CA_UNKNOWN\)\n {2}\S.*postern-edge ca ssh show/,
    )
    assert.deepEqual(photograph(sshd.folder), untouched)
    const own = path.join(edge.dataDir, 'ca', 'ssh-user-ca.pub')
    const done = await setup(sshd, ...wanted(sshd), '--user-ca', own)
    assert.equal(done.code, 0, done.stderr)
  })

  test('where the new access would not work', async () => {
    await using sshd = await startOwnSshd({ lines: ['PubkeyAuthentication no'] })
    await refusal(sshd, /a certificate for \S+ would not let \S+ in/)
  })

  for (const [what, when, message] of [
    ['a key that opens it would not any more', '-i', /a key of \S+ that worked would not work any more/],
    [
      'it would change more than it should',
      '',
      /would change more for \S+ than it should: authorizedkeysfile/,
    ],
  ] as const) {
    test(`where ${what}`, async () => {
      await using sshd = await startOwnSshd()
      // an sshd that, with our lines, reads no authorized_keys: for a login, or for whoever asks it
      const dropIn = path.join(sshd.dropIns, '00-postern.conf')
      const program = path.join(makeTempFolder('sshd'), 'sshd')
      writeFileSync(
        program,
        `#!/bin/sh
case " $* " in *" ${when}"*) test ! -e '${dropIn}' || set -- -o AuthorizedKeysFile=none "$@" ;; esac
exec /usr/sbin/sshd "$@"
`,
        { mode: 0o755 },
      )
      await refusal(sshd, message, ...wanted(sshd), '--sshd', program)
    })
  }

  test('for a user whom this machine does not have', async () => {
    await using sshd = await startOwnSshd()
    await refusal(sshd, /there is no local user nobody-here/, '--host', service.host, '--user', 'nobody-here')
  })

  test('when sshd cannot be reloaded', async () => {
    await using sshd = await startOwnSshd()
    const untouched = photograph(sshd.folder)
    const { code, stderr } = await setup(sshd, ...wanted(sshd), '--reload-command', 'false')
    assert.equal(code, 1)
    assert.match(stderr, /sshd was not reloaded/)
    // taking it back needs a reload too: sshd's own files are as before, ours wait for one that works
    assert.deepEqual(
      photograph(sshd.folder).filter((line) => !line.startsWith('postern')),
      untouched,
    )
    const undone = await setup(sshd, '--undo', '--reload-command', 'true')
    assert.equal(undone.code, 0, undone.stderr)
    assert.deepEqual(photograph(sshd.folder), untouched)
  })

  test('by --dry-run, which shows what would be written', async () => {
    await using sshd = await startOwnSshd()
    const untouched = photograph(sshd.folder)
    const { code, stdout, stderr } = await setup(sshd, ...wanted(sshd), '--dry-run')
    assert.equal(code, 0, stderr)
    assert.match(stdout, /^==> \S+\/sshd_config\.d\/00-postern\.conf$/m)
    assert.match(stdout, /^TrustedUserCAKeys "\S+\/postern\/user-ca\.pub"$/m)
    assert.match(stdout, new RegExp(`^${service.host.replaceAll('.', '\\.')}$`, 'm'))
    const pid = readFileSync(path.join(sshd.folder, 'sshd.pid'), 'utf8').trim()
    assert.match(stdout, new RegExp(`^\\$ /bin/sh -c 'kill -HUP ${pid}'$`, 'm'))
    assert.deepEqual(photograph(sshd.folder), untouched)
    assert.equal(restarts(sshd), 0)
  })

  test('by --dry-run --json, which a program can read; and --json alone is refused', async () => {
    await using sshd = await startOwnSshd()
    const untouched = photograph(sshd.folder)
    const { code, stdout, stderr } = await setup(
      sshd,
      ...[...wanted(sshd), '--dry-run', '--json', '--scheduler', 'systemd', '--reload-command', 'reload it'],
    )
    assert.equal(code, 0, stderr)
    const { host, files, commands } = JSON.parse(stdout) as {
      host: string
      files: { file: string; text: string }[]
      commands: string[][]
    }
    assert.equal(host, service.host)
    assert.deepEqual(
      files.map(({ file }) => file),
      [
        path.join(sshd.folder, 'postern/user-ca.pub'),
        path.join(sshd.folder, 'postern/principals', sshd.user),
        path.join(sshd.dropIns, '00-postern.conf'),
        '/etc/systemd/system/postern-sshd-refresh.service',
        '/etc/systemd/system/postern-sshd-refresh.timer',
      ],
    )
    assert.equal(files[1]!.text, `${service.host}\n`)
    assert.deepEqual(commands, [
      ['/bin/sh', '-c', 'reload it'],
      ['systemctl', 'daemon-reload'],
      ['systemctl', 'enable', '--quiet', '--now', 'postern-sshd-refresh.timer'],
    ])
    const alone = await setup(sshd, ...wanted(sshd), '--json')
    assert.deepEqual([alone.code, alone.stdout], [2, ''])
    assert.match(alone.stderr, /--json belongs to --dry-run \(USAGE_INVALID\)\n {2}\S/)
    assert.deepEqual(photograph(sshd.folder), untouched)
    assert.equal(restarts(sshd), 0)
  })
})
