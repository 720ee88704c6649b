import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { findKeys } from './check-access.ts'
import { dropInText, layoutOf, parseLocalUser } from './drop-in.ts'
import { findSideEffect, parseEffectiveConfig } from './effective-config.ts'
import { commandLine, scheduleFiles } from './schedule.ts'
import {
  findDropInFile,
  includeAtTop,
  parseDirectives,
  readDirectives,
  refuseConflicts,
  removeInclude,
} from './sshd-config.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-sshd-config-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const dropIns = path.join(folder, 'sshd_config.d')
mkdirSync(dropIns)
const main = path.join(folder, 'sshd_config')

describe('where the lines go', () => {
  it('into the folder that the global part includes', () => {
    const found = path.join(dropIns, '00-postern.conf')
    assert.equal(findDropInFile(main, `Port 22\nInclude ${dropIns}/*.conf\n`), found)
    assert.equal(findDropInFile(main, `  include = "${dropIns}/*.conf" # all\n`), found)
  })

  it('not into one that a Match includes, that is not there, or that reads other names', () => {
    assert.equal(findDropInFile(main, `Match User ann\nInclude ${dropIns}/*.conf\n`), undefined)
    assert.equal(findDropInFile(main, `#Include ${dropIns}/*.conf\n`), undefined)
    assert.equal(findDropInFile(main, `Include ${folder}/nowhere/*.conf\n`), undefined)
    assert.equal(findDropInFile(main, `Include ${dropIns}/50-*.conf\n`), undefined)
    assert.equal(findDropInFile(main, 'Port 22\n'), undefined)
  })

  it('else beside it, included at the top, where no Match can swallow the line', () => {
    const text = 'Port 22\n\nMatch User ann\n  X11Forwarding no'
    const changed = includeAtTop(text, '/etc/ssh/postern/sshd.conf')
    assert.equal(changed, `Include "/etc/ssh/postern/sshd.conf"\n${text}`)
    assert.equal(removeInclude(changed, '/etc/ssh/postern/sshd.conf'), text)
    assert.equal(removeInclude(`# mine\n${changed}`, '/etc/ssh/postern/sshd.conf'), `# mine\n${text}`)
  })
})

describe('what is there already', () => {
  const conflict = (text: string) => {
    writeFileSync(main, `Include ${dropIns}/*.conf\n`)
    writeFileSync(path.join(dropIns, '50-cloud.conf'), text)
    refuseConflicts(readDirectives(main))
  }

  it('is refused where it names CAs, principals or revoked keys, also in a Match and in an included file', () => {
    for (const line of [
      'TrustedUserCAKeys /etc/ssh/ca.pub',
      'authorizedprincipalsfile=%h/.ssh/authorized_principals',
      'AuthorizedPrincipalsCommand /usr/bin/whoever',
      'Match User ann\n  RevokedKeys "/etc/ssh/revoked"',
    ]) {
      const message = /50-cloud\.conf line [12] sets \w+ already: nothing was changed/
      assert.throws(() => conflict(line), { code: 'SSHD_SETUP_FAILED', message }, line)
    }
  })

  it('is fine otherwise', () => {
    conflict('PasswordAuthentication no\nRevokedKeys none\n# TrustedUserCAKeys /etc/ssh/ca.pub\n')
  })

  it('is read with quotes, equal signs and comments', () => {
    const [directive] = parseDirectives('  Include="/a b/*.conf" c # d\r\n', main)
    assert.deepEqual(directive, {
      ...{ keyword: 'include', values: ['/a b/*.conf', 'c'], isInMatch: false, file: main, line: 1 },
    })
  })

  it('must stay as it is: any other keyword with another value is told', () => {
    const before = parseEffectiveConfig('port 22\npermitrootlogin no\ntrustedusercakeys none\n')
    const after = parseEffectiveConfig('port 22\npermitrootlogin no\ntrustedusercakeys /etc/ca\n')
    assert.equal(findSideEffect(before, after), undefined)
    const worse = parseEffectiveConfig('port 22\npermitrootlogin yes\n')
    assert.equal(findSideEffect(before, worse), 'permitrootlogin no → yes')
    assert.equal(findSideEffect(before, parseEffectiveConfig('port 22\n')), 'permitrootlogin no → ')
  })

  it('keys are found behind options and without comments, but no CAs', () => {
    const keys = findKeys(
      [
        '# ssh-ed25519 AAAAcomment',
        'ssh-ed25519 AAAAone ann@laptop',
        'from="10.0.0.0/8",command="ssh-keygen -l" ssh-rsa AAAAtwo==',
        'cert-authority,principals="x" ssh-ed25519 AAAAca',
        'sk-ssh-ed25519@openssh.com AAAAthree',
        '',
      ].join('\n'),
    )
    const expected = ['ssh-ed25519 AAAAone', 'ssh-rsa AAAAtwo==', 'sk-ssh-ed25519@openssh.com AAAAthree']
    assert.deepEqual(keys, expected)
  })
})

describe('what is written', () => {
  it('admits by a file for each user, and nobody else', () => {
    const layout = layoutOf('/etc/ssh/sshd_config')
    assert.deepEqual(
      dropInText('a.edge.example.com', layout, ['/etc/ssh/postern/host-certificates/k-cert.pub'])
        .split('\n')
        .filter((line) => !line.startsWith('#')),
      [
        'TrustedUserCAKeys "/etc/ssh/postern/user-ca.pub"',
        'AuthorizedPrincipalsFile "/etc/ssh/postern/principals/%u"',
        'RevokedKeys "/etc/ssh/postern/revoked.krl"',
        'HostCertificate "/etc/ssh/postern/host-certificates/k-cert.pub"',
        '',
      ],
    )
  })

  it('users are file names of one part', () => {
    for (const good of ['ubuntu', '_svc', 'ann.lee', 'A-1']) assert.equal(parseLocalUser(good), good)
    for (const bad of ['', '.', '..', '../root', 'a/b', '-u', 'a b', 'a\n', 'ü']) {
      assert.throws(() => parseLocalUser(bad), { code: 'USAGE_INVALID' }, bad)
    }
  })

  it('the refresh is scheduled with every word quoted', () => {
    const command = ['/opt/my node/node', '/opt/postern.js', 'sshd', 'refresh', '--x', "50% $HOME's"]
    assert.equal(
      commandLine(command),
      `'/opt/my node/node' /opt/postern.js sshd refresh --x '50% $HOME'\\''s'`,
    )
    const [cron] = scheduleFiles('cron', command)
    assert.equal(cron!.file, '/etc/cron.d/postern-sshd-refresh')
    assert.match(cron!.text, /^\* \* \* \* \* root '\/opt\/my node\/node' .* '50\\% \$HOME'/m)
    const [service, timer] = scheduleFiles('systemd', command)
    assert.match(service!.text, /^ExecStart="\/opt\/my node\/node" .* "50%% \$\$HOME's"$/m)
    assert.match(timer!.text, /^OnUnitInactiveSec=60s$/m)
    assert.deepEqual(scheduleFiles('none', command), [])
  })
})
