import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { readUsualKeysign } from '../commands/client/ssh-keysign.ts'
import { readUsualTls } from '../commands/client/tls.ts'
import { useNetwork } from './options.ts'

afterEach(() => {
  delete process.env.POSTERN_PROXY
  delete process.env.POSTERN_PROXY_CREDENTIALS_FILE
})

test('what ssh starts takes a proxy without loading the command line', () => {
  const args = ['--host', 'h.edge.example.com', '--proxy', 'http://p:3128', '--proxy-credentials-file', 'f']
  for (const read of [readUsualTls, readUsualKeysign]) {
    const { proxy, proxyCredentialsFile } = read(args) ?? {}
    assert.deepEqual({ proxy, proxyCredentialsFile }, { proxy: 'http://p:3128', proxyCredentialsFile: 'f' })
  }
})

test('options hold for the programs that this one starts, and what is left out changes nothing', () => {
  process.env.POSTERN_PROXY = 'http://before:1'
  useNetwork({})
  assert.equal(process.env.POSTERN_PROXY, 'http://before:1')
  useNetwork({ proxy: 'socks5://p:1080', proxyCredentialsFile: 'f' })
  assert.equal(process.env.POSTERN_PROXY, 'socks5://p:1080')
  assert.equal(process.env.POSTERN_PROXY_CREDENTIALS_FILE, 'f')
})
