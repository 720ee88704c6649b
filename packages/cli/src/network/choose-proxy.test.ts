import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, test } from 'node:test'
import { chooseProxy } from './choose-proxy.ts'
import { useNetwork } from './options.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-proxy-'))
after(() => rmSync(folder, { recursive: true }))

const EDGE = { host: 'edge.mycorp.com', port: 443 }
const HTTP = 'http://proxy.lan:3128'

function chosen(env: NodeJS.ProcessEnv, place: { host: string; port: number } = EDGE) {
  const proxy = chooseProxy(place, env)
  return proxy && `${proxy.kind} ${proxy.host} ${proxy.port}`
}

function fileOf(text: string, mode = 0o600): string {
  const file = path.join(folder, 'credentials')
  rmSync(file, { force: true })
  writeFileSync(file, text)
  chmodSync(file, mode)
  return file
}

describe('the proxy of the environment', () => {
  test('is the first one named, ours before those of all programs', () => {
    assert.equal(chosen({}), undefined)
    assert.equal(chosen({ HTTP_PROXY: HTTP }), undefined) // for http://, which the edge does not speak
    assert.equal(chosen({ ALL_PROXY: 'socks5://a.lan' }), 'socks5 a.lan 1080')
    assert.equal(chosen({ ALL_PROXY: 'socks5://a.lan', https_proxy: HTTP }), 'http proxy.lan 3128')
    assert.equal(chosen({ HTTPS_PROXY: HTTP, POSTERN_PROXY: 'socks5h://b.lan:9' }), 'socks5 b.lan 9')
  })

  test('may be written without a scheme, and with an IPv6 address', () => {
    assert.equal(chosen({ HTTPS_PROXY: 'proxy.lan:3128' }), 'http proxy.lan 3128')
    assert.equal(chosen({ HTTPS_PROXY: 'http://[2001:db8::1]:8080/' }), 'http 2001:db8::1 8080')
    assert.equal(chosen({ HTTPS_PROXY: 'https://proxy.lan' }), 'https proxy.lan 443')
  })

  test('leads neither to this machine nor to what NO_PROXY names; ours does', () => {
    for (const host of ['localhost', 'edge.localhost', '127.0.0.1', '::1']) {
      assert.equal(chosen({ HTTPS_PROXY: HTTP }, { host, port: 443 }), undefined, host)
      assert.equal(chosen({ POSTERN_PROXY: HTTP }, { host, port: 443 }), 'http proxy.lan 3128', host)
    }
    const excepted = [
      '*',
      'mycorp.com',
      '.mycorp.com',
      '*.mycorp.com',
      'EDGE.mycorp.com',
      'x.org, mycorp.com:443',
    ]
    for (const NO_PROXY of excepted) {
      assert.equal(chosen({ HTTPS_PROXY: HTTP, NO_PROXY }), undefined, NO_PROXY)
      assert.equal(chosen({ POSTERN_PROXY: HTTP, NO_PROXY }), 'http proxy.lan 3128', NO_PROXY)
    }
    for (const no_proxy of [
      '',
      'corp.com',
      'edge',
      'mycorp.com:8443',
      'mycorp.com.',
      'a,,b',
      'x.edge.mycorp.com',
    ]) {
      assert.equal(chosen({ HTTPS_PROXY: HTTP, no_proxy }), 'http proxy.lan 3128', no_proxy)
    }
  })

  test('is refused when it is no address of a proxy, and not repeated: it may hold a password', () => {
    const wrong = [
      'https://u:hunter2@p.lan/x',
      'ftp://hunter2',
      'http://p.lan/hunter2',
      'http://p.lan:99999',
      'http://',
      'socks4://p',
    ]
    for (const HTTPS_PROXY of wrong) {
      assert.throws(
        () => chosen({ HTTPS_PROXY }),
        ({ code, message, hint }) =>
          code === 'USAGE_INVALID' &&
          /^HTTPS_PROXY /.test(message) &&
          !`${message}${hint}`.includes('hunter2'),
        HTTPS_PROXY,
      )
    }
  })
})

describe('what the proxy wants to know', () => {
  test('stands in the address, or in a file that only its owner reads', () => {
    const inAddress = { HTTPS_PROXY: 'http://an%40n:p%3Aw@proxy.lan' }
    assert.deepEqual(chooseProxy(EDGE, inAddress)?.credentials, { name: 'an@n', password: 'p:w' })
    for (const text of ['ann:p:w', 'ann:p:w\n', 'ann:p:w\r\n']) {
      const env = { ...inAddress, POSTERN_PROXY_CREDENTIALS_FILE: fileOf(text) }
      assert.deepEqual(chooseProxy(EDGE, env)?.credentials, { name: 'ann', password: 'p:w' })
    }
    assert.equal(chooseProxy(EDGE, { HTTPS_PROXY: HTTP })?.credentials, undefined)
  })

  test('is refused when others can read it, or it is something else', () => {
    const read = (file: string) => () =>
      chooseProxy(EDGE, { HTTPS_PROXY: HTTP, POSTERN_PROXY_CREDENTIALS_FILE: file })
    assert.throws(read(fileOf('ann:pw', 0o644)), { code: 'USAGE_INVALID', hint: /chmod 600/ })
    assert.throws(read(path.join(folder, 'nowhere')), { code: 'USAGE_INVALID', message: /no such file/ })
    for (const text of ['', 'ann', ':pw', 'ann:pw\nbob:pw', 'ann:p\0w', `ann:${'x'.repeat(256)}`]) {
      assert.throws(read(fileOf(text)), { code: 'USAGE_INVALID' }, JSON.stringify(text))
    }
    for (const user of ['%', 'a%0d%0ab:c']) {
      assert.throws(
        () => chosen({ HTTPS_PROXY: `http://${user}@proxy.lan` }),
        { code: 'USAGE_INVALID' },
        user,
      )
    }
  })

  test('is never taken from a command line', () => {
    for (const proxy of ['http://ann:hunter2@proxy.lan', 'hunter2@proxy.lan']) {
      assert.throws(
        () => useNetwork({ proxy }),
        ({ code, message, hint }) => code === 'USAGE_INVALID' && !`${message}${hint}`.includes('hunter2'),
      )
    }
    assert.equal(process.env.POSTERN_PROXY, undefined)
  })
})
