import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { formatArguments, formatConfig, formatInclude, type SshSurroundings } from './settings.ts'

const EDGE = {
  origin: 'https://edge.example.com:8443',
  domain: 'edge.example.com',
  issuer: '',
  clientId: '',
  tokenEndpoint: '',
  folder: '/home/ann/.config/postern/edges/edge.example.com_8443',
}
const LINUX: SshSurroundings = {
  platform: 'linux',
  home: '/home/ann',
  sshHome: '/home/ann',
  program: ['postern'],
}
const WINDOWS: SshSurroundings = {
  platform: 'win32',
  home: 'C:\\Users\\Ann Lee',
  sshHome: 'C:\\Users\\Ann Lee',
  program: ['postern'],
}

function refuses(run: () => unknown): void {
  assert.throws(run, (error) => error instanceof PosternError && error.code === 'SSH_CONFIG_INVALID')
}

describe('the text for ssh', () => {
  it('on Linux and macOS', () => {
    assert.equal(
      formatConfig([EDGE], LINUX),
      `Match host "*.edge.example.com,!*'*" exec "postern client ssh-keysign --host '%h'"
    ProxyCommand postern client tls --host '%h'
    IdentityFile ~/.ssh/%h
    CertificateFile ~/.ssh/%h-cert.pub
    IdentitiesOnly yes
    UserKnownHostsFile ~/.ssh/known_hosts /home/ann/.config/postern/edges/edge.example.com_8443/known_hosts
Match host "*.edge.example.com"
    ProxyCommand false
`,
    )
    assert.equal(formatInclude('/home/ann/.ssh/postern.conf', LINUX), 'Include ~/.ssh/postern.conf')
  })

  it('on Windows: forward slashes, no quotes of other shells, and no host with a character of cmd.exe', () => {
    const folder = 'C:\\Users\\Ann Lee\\AppData\\Roaming\\postern\\edges\\edge.example.com_8443'
    const text = formatConfig([{ ...EDGE, folder }], WINDOWS)
    assert.ok(!text.includes('\\'), text)
    const [match] = text.split('\n')
    assert.match(
      match!,
      /^Match host "\*\.edge\.example\.com,\S.*" exec "postern client ssh-keysign --host %h"$/,
    )
    for (const character of "&|<>^%();'$` ") assert.ok(match!.includes(`,!*${character}*`), character)
    assert.match(
      text,
      /UserKnownHostsFile ~\/\.ssh\/known_hosts "C:\/Users\/Ann Lee\/AppData\/Roaming\/postern\/edges\/[^"]+\/known_hosts"\n/,
    )
    assert.match(text, /ProxyCommand cmd \/c exit 1\n/)
  })

  it('spaces, percent signs and patterns in paths', () => {
    const home = '/home/a [b] 100%'
    const around = { ...LINUX, home, program: ['/opt/my node/node', '/opt/a%b/postern.js'] }
    const text = formatConfig([{ ...EDGE, folder: '/state of 100%/edge' }], around)
    assert.ok(
      text.includes(`exec "'/opt/my node/node' '/opt/a%%b/postern.js' client ssh-keysign --host '%h'"`),
      text,
    )
    assert.ok(text.includes(`IdentityFile "/home/a [b] 100%%/.ssh/%h"\n`), text)
    assert.ok(text.includes(`"/state of 100%%/edge/known_hosts"\n`), text)
    assert.equal(
      formatInclude(`${home}/.ssh/postern.conf`, around),
      'Include "/home/a [[]b] 100%/.ssh/postern.conf"',
    )
  })

  it('names the edge where that is asked for', () => {
    assert.match(
      formatConfig([EDGE], LINUX, EDGE.origin),
      /ssh-keysign --edge https:\/\/edge\.example\.com:8443 --host/,
    )
    assert.deepEqual(formatArguments(EDGE, LINUX).slice(0, 2), [
      '-o',
      "ProxyCommand postern client tls --edge https://edge.example.com:8443 --host '%h'",
    ])
  })

  it('says nothing that a reader could take for more', () => {
    for (const domain of [
      "a'b.example",
      'a"b.example',
      'a,b.example',
      '*.example',
      'a b.example',
      'a\nb.example',
    ]) {
      refuses(() => formatConfig([{ ...EDGE, domain }], LINUX))
      refuses(() => formatArguments({ ...EDGE, domain }, LINUX))
    }
    for (const folder of ['/a"b', '/a\\b', '/a\nb', `/a$${'{HOME}'}`]) {
      refuses(() => formatConfig([{ ...EDGE, folder }], LINUX))
    }
    for (const word of ["/it's/postern", '/a"b/postern', '/a\\b/postern']) {
      refuses(() => formatConfig([EDGE], { ...LINUX, program: [word] }))
    }
    refuses(() => formatConfig([EDGE], { ...WINDOWS, program: ['C:\\Program Files\\node.exe'] }))
  })
})
