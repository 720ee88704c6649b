import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { loadConfig } from './load.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-config-'))
after(() => rmSync(folder, { recursive: true }))
const file = path.join(folder, 'edge.yaml')
const inFolder = (name: string) => path.join(folder, name)

function write(name: string, text: string, mode = 0o600): void {
  writeFileSync(inFolder(name), text)
  chmodSync(inFolder(name), mode)
}

const UPSTREAM = `domain: edge.mycorp.com
identity: { issuer: https://idp.mycorp.com, client_id: edge, client_secret_file: secret }
`

describe('loading', () => {
  it('takes the mode that credentials of systemd have, in their folder only', (context) => {
    context.after(() => delete process.env.CREDENTIALS_DIRECTORY)
    write('edge.yaml', UPSTREAM)
    for (const mode of [0o400, 0o440]) {
      write('secret', 's3cret', mode)
      process.env.CREDENTIALS_DIRECTORY = folder
      assert.ok(loadConfig(file))
    }
    for (const mode of [0o404, 0o460]) {
      write('secret', 's3cret', mode)
      assert.throws(() => loadConfig(file), /can be read by other users/)
    }
    write('secret', 's3cret', 0o440)
    process.env.CREDENTIALS_DIRECTORY = path.join(folder, 'elsewhere')
    assert.throws(() => loadConfig(file), /can be read by other users/)
    rmSync(inFolder('secret'))
  })

  it('reads the secret beside the file, without its line end', () => {
    write('edge.yaml', UPSTREAM)
    write('secret', 's3cret\n')
    const { identity } = loadConfig(file)
    assert.equal(identity.kind === 'upstream' && identity.clientSecret, 's3cret')
  })

  it('refuses a configuration that everybody may write', () => {
    write('secret', 's3cret')
    write('edge.yaml', UPSTREAM, 0o646)
    assert.throws(() => loadConfig(file), {
      code: 'CONFIG_INVALID',
      message: `${file} cannot be read: everybody on this machine may write to it, run: chmod o-w ${file}`,
    })
    write('edge.yaml', UPSTREAM, 0o664)
    assert.ok(loadConfig(file))
  })

  it('refuses a secret that others can read, in a sentence with the remedy', () => {
    write('edge.yaml', UPSTREAM)
    for (const mode of [0o640, 0o604, 0o644]) {
      write('secret', 's3cret', mode)
      assert.throws(() => loadConfig(file), {
        code: 'CONFIG_INVALID',
        message: /line 2: identity.client_secret_file: .* can be read by other users.*chmod 600 /,
      })
    }
    write('secret', '  \n')
    assert.throws(() => loadConfig(file), { message: /is empty/ })
    rmSync(inFolder('secret'))
    assert.throws(() => loadConfig(file), { message: /cannot be read: there is no such file/ })
  })

  it('refuses a certificate that is for other names or another key', () => {
    const make = (name: string, san: string) =>
      execFileSync(
        'openssl',
        ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=x']
          .concat(['-addext', `subjectAltName=${san}`, '-keyout', inFolder(`${name}.key`)])
          .concat(['-out', inFolder(`${name}.pem`)]),
        { stdio: 'pipe' },
      )
    make('good', 'DNS:edge.mycorp.com,DNS:*.edge.mycorp.com')
    make('narrow', 'DNS:edge.mycorp.com')
    write('secret', 's3cret')
    const withTls = (certificate: string, key: string) => {
      write('edge.yaml', `${UPSTREAM}tls: { certificate_file: ${certificate}.pem, key_file: ${key}.key }\n`)
      return loadConfig(file)
    }
    assert.deepEqual(withTls('good', 'good').tls, {
      kind: 'files',
      certificateFile: inFolder('good.pem'),
      keyFile: inFolder('good.key'),
    })
    assert.throws(() => withTls('narrow', 'narrow'), { message: /is not valid for mtls.edge.mycorp.com/ })
    assert.throws(() => withTls('good', 'narrow'), { message: /does not belong to the key/ })
    assert.throws(() => withTls('missing', 'good'), { message: /there is no such file/ })
  })

  it('refuses files of ACME that cannot be used, all at once', () => {
    write('secret', 's3cret')
    write('open-key', 'a2V5', 0o644)
    write('no-ca', 'CA')
    write('hook', '#!/bin/sh\n', 0o600)
    const least = 'directory: https://ca.test/dir, accept_terms: true, challenge: dns-01'
    const withAcme = (keys: string) => {
      write('edge.yaml', `${UPSTREAM}tls: { acme: { ${least}, ${keys} } }\n`)
      return loadConfig(file).tls
    }
    const all = 'dns_hook: hook, ca_file: no-ca, eab_key_id: k, eab_key_file: open-key'
    for (const message of [
      /has 3 problems/,
      /dns_hook: .* cannot be run by this user, run: chmod 755/,
      /ca_file: .* is not a certificate in PEM/,
      /eab_key_file: .* can be read by other users/,
    ])
      assert.throws(() => withAcme(all), { code: 'CONFIG_INVALID', message })
    assert.throws(() => withAcme('dns_hook: none'), { message: /there is no such file/ })
    assert.throws(() => withAcme('dns_hook: .'), { message: /is not a program/ })
    chmodSync(inFolder('hook'), 0o700)
    write('open-key', 'a2V5')
    const tls = withAcme('dns_hook: hook, eab_key_id: k, eab_key_file: open-key')
    assert.ok(tls?.kind === 'acme')
    assert.deepEqual(tls.challenge, { type: 'dns-01', hook: inFolder('hook') })
    assert.deepEqual(tls.externalAccount, { keyId: 'k', hmacKey: 'a2V5' })
  })

  it('refuses a file that is missing, too large or not text', () => {
    assert.throws(() => loadConfig(inFolder('none.yaml')), {
      code: 'CONFIG_INVALID',
      message: /there is no such file/,
    })
    write('edge.yaml', `# ${'x'.repeat(300_000)}`)
    assert.throws(() => loadConfig(file), { message: /262144 are the most/ })
    writeFileSync(file, Buffer.from([0x61, 0xff, 0xfe]))
    assert.throws(() => loadConfig(file), { code: 'CONFIG_INVALID', message: /not UTF-8/ })
  })
})
