import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { describeStore, parseStoreLocation } from '../store/location.ts'
import { type ConfigFiles, type ConfigProblem, parseConfig } from './parse.ts'

const FILES: ConfigFiles = {
  readSecret: () => 's3cret',
  checkOwnMode: () => {},
  checkCertificate: () => {},
  readCa: () => '',
  checkProgram: () => {},
}
const parseText = (text: string, files = FILES) =>
  parseConfig(text, { name: 'edge.yaml', folder: '/etc/postern-edge', files })
const DEV = 'domain: edge.localhost\nlisten: 127.0.0.1:8443\nidentity: { dev: true }\n'
const UPSTREAM = `domain: Edge.MyCorp.com
identity:
  issuer: https://idp.mycorp.com/
  client_id: edge
  client_secret_file: secret
`

function problemsOf(text: string, files = FILES): ConfigProblem[] {
  try {
    parseText(text, files)
  } catch (error) {
    assert.ok(error instanceof PosternError)
    assert.equal(error.code, 'CONFIG_INVALID')
    return error.details!.problems as ConfigProblem[]
  }
  return []
}
const told = (text: string, files = FILES) =>
  problemsOf(text, files).map(({ line, key, message }) => `${line} ${key}: ${message}`)

describe('a configuration file', () => {
  it('is completed with defaults, in the units the names say', () => {
    const config = parseText(DEV)
    assert.deepEqual(config.listen, { host: '127.0.0.1', port: 8_443 })
    assert.deepEqual(config.certificates, {
      ttlMs: 300_000,
      backdateMs: 300_000,
      sessionMs: 43_200_000,
      connectorTtlMs: 86_400_000,
      enrollTokenMaxTtlMs: 7 * 86_400_000,
      workloadMaxTtlMs: 90 * 86_400_000,
      workloadMaxLifetimeMs: 366 * 86_400_000,
    })
    assert.deepEqual(config.operators, { emailDomains: [], emailAddresses: [], anyAuthenticated: false })
    assert.deepEqual(config.identity, { kind: 'dev' })
    assert.equal(config.tls, undefined)
    assert.equal(config.login.device, false)
  })

  it('has its names folded and its paths resolved against its own folder', () => {
    const config = parseText(
      `${UPSTREAM}data_dir: state\noperators: { email_domains: [MyCorp.com], email_addresses: [A.B@X.org] }\n`,
      { ...FILES, readSecret: (file) => file },
    )
    assert.equal(config.domain, 'edge.mycorp.com')
    assert.equal(config.dataDir, '/etc/postern-edge/state')
    assert.equal(config.store, 'sqlite:/etc/postern-edge/state/edge.sqlite')
    assert.equal(
      config.identity.kind === 'upstream' && config.identity.clientSecret,
      '/etc/postern-edge/secret',
    )
    assert.deepEqual(config.operators.emailDomains, ['mycorp.com'])
    assert.deepEqual(config.operators.emailAddresses, ['a.b@x.org'])
    assert.equal(parseText(`${DEV}store: sqlite:x.db`).store, 'sqlite:/etc/postern-edge/x.db')
  })

  it('is refused with all its problems at once, by line, with the value seen and an example', () => {
    const text = `domain: localhost
listen: "443"
identity:
  issuer: http://idp.mycorp.com
  client_id: 7
  client_sekret_file: x
certificates:
  ttl: 5 minutes
  session: 31d
operators:
  email_domains: ["*.mycorp.com", mycorp.com]
limitz: {}
`
    assert.throws(
      () => parseText(text),
      (error: PosternError) => {
        assert.deepEqual(error.message.split('\n'), [
          'edge.yaml has 10 problems',
          '  line 1: domain: "localhost" is not a domain name of two parts or more (example: edge.example.com)',
          '  line 2: listen: "443" is not HOST:PORT, [IPV6]:PORT or :PORT (example: ":443")',
          '  line 3: identity.client_secret_file: is missing (example: /etc/postern-edge/client-secret)',
          '  line 4: identity.issuer: "http://idp.mycorp.com" is plain http: only a provider on this machine may be' +
            ' (example: https://accounts.google.com)',
          '  line 5: identity.client_id: 7 must be text (example: postern-edge)',
          '  line 6: identity.client_sekret_file: is not a key, did you mean identity.client_secret_file?',
          '  line 8: certificates.ttl: "5 minutes" is not a duration (example: 5m)',
          '  line 9: certificates.session: "31d" is more than 30 d (example: 12h)',
          '  line 11: operators.email_domains.0: "*.mycorp.com" is not an email domain (no @, no *) (example: [mycorp.com])',
          '  line 12: limitz: is not a key, did you mean limits?',
        ])
        return true
      },
    )
  })

  it('never shows a secret that stands in the wrong place', () => {
    const texts = [
      `${UPSTREAM}  client_secret: hunter2\n`,
      `${DEV}store: postgres://edge:hunter2@db/postern?sslmode=no-verify\n`,
      `${DEV}identity.client_secret: hunter2\n`,
    ]
    for (const text of texts) {
      assert.equal(problemsOf(text).length, 1)
      assert.throws(
        () => parseText(text),
        (error: Error) => !error.message.includes('hunter2'),
      )
    }
    assert.match(told(texts[0]!)[0]!, /write it into a file and name that in client_secret_file|did you mean/)
  })

  it('is refused when it says a thing twice, or is not plain YAML', () => {
    assert.deepEqual(told(`${DEV}domain: other.example.com\n`), ['4 : this key is written twice'])
    assert.match(told('domain: [\n')[0]!, /^\d+ : /)
    assert.match(told('a: &a [x]\nb: *a\n')[0]!, /aliases/)
    assert.match(told('domain: !!js/function "x"\n')[0]!, /tag/)
    assert.match(told('a: 1\n---\nb: 2\n')[0]!, /document/)
    assert.match(told('')[0]!, /has no value/)
    assert.deepEqual(told(`${DEV}operators:\n`), ['4 operators: has no value'])
    assert.deepEqual(told(`${DEV}operators: [a]\n`), ['4 operators: must be a section, not a list'])
    assert.match(told('- a\n')[0]!, /must be a section/)
    assert.match(told('"__proto__": { dev: true }\n')[0]!, /not a key|is missing/)
  })
})

describe('dev identity', () => {
  const dev = (listen: string, more = '') =>
    told(`domain: edge.localhost\nlisten: "${listen}"\nidentity:\n  dev: true\n${more}`)

  it('is accepted on loopback addresses', () => {
    for (const listen of ['127.0.0.1:0', '127.9.9.9:1', '[::1]:8443', 'localhost:8443', 'edge.localhost:1']) {
      assert.deepEqual(dev(listen), [], listen)
    }
  })

  it('is refused on any other address, unless that is asked for by name', () => {
    for (const listen of [':8443', '0.0.0.0:8443', '[::]:8443', '192.168.1.1:8443', 'localhost.evil.com:1']) {
      assert.match(dev(listen)[0] ?? '', /^4 identity.dev: believes any address/, listen)
      assert.deepEqual(dev(listen, '  unsafe_dev_identity: true\n'), [], listen)
    }
    assert.match(told('domain: a.b.com\nidentity: { dev: true }\n')[0]!, /believes any address/)
  })

  it('is refused beside a provider', () => {
    assert.deepEqual(dev('127.0.0.1:0', '  issuer: https://idp.mycorp.com\n'), [
      '5 identity.issuer: contradicts identity.dev: true, remove one of them',
    ])
  })
})

describe('the metrics', () => {
  const metrics = (rest: string) => told(`${DEV}metrics: { ${rest} }\n`)

  it('are served on loopback addresses', () => {
    assert.equal(parseText(DEV).metrics, undefined)
    for (const listen of ['127.0.0.1:9464', '[::1]:9464', 'localhost:0'])
      assert.deepEqual(metrics(`listen: "${listen}"`), [], listen)
    assert.deepEqual(parseText(`${DEV}metrics: { listen: "127.0.0.1:9464" }`).metrics, {
      host: '127.0.0.1',
      port: 9_464,
    })
  })

  it('are not served on any other address, unless that is asked for by name', () => {
    for (const listen of [':9464', '0.0.0.0:9464', '[::]:9464', '192.168.1.1:1', 'localhost.evil.com:1']) {
      assert.match(
        metrics(`listen: "${listen}"`)[0] ?? '',
        /^4 metrics.listen: is served in the clear/,
        listen,
      )
      assert.deepEqual(metrics(`listen: "${listen}", unsafe_other_addresses: true`), [], listen)
    }
    assert.deepEqual(metrics('listen: nowhere'), ['4 metrics.listen: is not HOST:PORT, [IPV6]:PORT or :PORT'])
  })

  it('believes balancers that are named, and not everybody', () => {
    const accepted = (list: string) => told(`${DEV}accept_proxy_protocol: ${list}`)
    const good = '["10.0.0.5", "10.1.0.0/16", "::1", "2001:DB8::/32"]'
    assert.deepEqual(parseText(`${DEV}accept_proxy_protocol: ${good}`).acceptProxyProtocol, [
      ...['10.0.0.5', '10.1.0.0/16', '::1', '2001:db8::/32'],
    ])
    assert.deepEqual(parseText(DEV).acceptProxyProtocol, [])
    for (const everybody of ['"0.0.0.0/0"', '"::/0"']) {
      assert.match(accepted(`[${everybody}]`).join(), /is everybody: whoever connects could say any address/)
    }
    for (const bad of ['"balancer.mycorp.com"', '"10.0.0.5:443"', '"10.0.0.5/8"', '""'])
      assert.match(accepted(`[${bad}]`).join(), /^4 accept_proxy_protocol/, bad)
    assert.match(accepted('10.0.0.5').join(), /must be a list/)
  })
})

describe('the provider', () => {
  it('may speak plain http on this machine only', () => {
    const issuer = (url: string) => told(UPSTREAM.replace('https://idp.mycorp.com/', url))
    for (const url of [
      'http://127.0.0.1:8080',
      'http://[::1]:1/x',
      'http://idp.localhost:1',
      'https://a.b/c',
    ]) {
      assert.deepEqual(issuer(url), [], url)
    }
    for (const url of ['http://10.0.0.1', 'http://localhost.evil.com', 'ftp://x', 'idp', 'https://u:p@a.b']) {
      assert.equal(issuer(url).length, 1, url)
    }
  })

  it('needs its three keys', () => {
    assert.deepEqual(
      problemsOf('domain: a.b.com\nidentity: {}\n').map((problem) => problem.key),
      ['identity.issuer', 'identity.client_id', 'identity.client_secret_file'],
    )
  })

  it('takes its certificate by ACME, and says all that is wrong with that', () => {
    const acme = (keys: string) => `${UPSTREAM}tls: { acme: { ${keys} } }\n`
    const least = 'directory: https://ca.test/dir, accept_terms: true'
    const read = (keys: string) => {
      const { tls } = parseConfig(acme(keys), { name: 'edge.yaml', folder: '/etc/edge', files: FILES })
      assert.ok(tls?.kind === 'acme')
      return tls
    }
    assert.deepEqual(read(least).names, ['edge.mycorp.com', 'mtls.edge.mycorp.com'])
    assert.deepEqual(read(`${least}, challenge: dns-01, dns_hook: h, names: [a.edge.mycorp.com]`).names, [
      'edge.mycorp.com',
      '*.edge.mycorp.com',
    ])
    const reasons = (keys: string) => told(acme(keys)).map((line) => line.replace(/^\d+ /, ''))
    assert.deepEqual(reasons('directory: http://127.0.0.1/dir, accept_terms: false'), [
      'tls.acme.directory: is not an https URL',
      'tls.acme.accept_terms: must be true: read the terms of the CA, and accept them here',
    ])
    assert.deepEqual(reasons(`${least}, names: ["*.edge.mycorp.com", evil.com, "a b"]`), [
      'tls.acme.names.2: is not a domain name, or *. and one',
    ])
    assert.deepEqual(reasons(`${least}, names: ["*.edge.mycorp.com", evil.com]`), [
      'tls.acme.names.0: is a wildcard, which needs challenge: dns-01',
      'tls.acme.names.1: is not below edge.mycorp.com',
    ])
    assert.deepEqual(reasons(`${least}, challenge: dns-01, eab_key_id: kid`), [
      'tls.acme.dns_hook: is missing: challenge: dns-01 needs it',
      'tls.acme.eab_key_file: is missing: eab_key_id needs it',
    ])
    assert.deepEqual(told(`${UPSTREAM}tls: { key_file: k, acme: { ${least} } }\n`).length, 1)
  })

  it('is refused with what is wrong with its files', () => {
    const files: ConfigFiles = {
      checkOwnMode: () => {},
      ...FILES,
      readSecret: () => {
        throw new Error('is empty')
      },
      checkCertificate: () => {
        throw new Error('does not belong to the key')
      },
    }
    assert.deepEqual(told(`${UPSTREAM}tls: { certificate_file: c, key_file: k }\n`, files), [
      '5 identity.client_secret_file: is empty',
      '6 tls.certificate_file: does not belong to the key',
    ])
  })
})

describe('store: postgres://…', () => {
  const PASSWORD = 'p&ss/w@rd%'
  const storeOf = (text: string, files = FILES) => parseText(`${DEV}${text}`, files).store
  const problemOf = (url: string) => told(`${DEV}store: "${url}"\n`).join()

  it('is kept, with the password of its file in it', () => {
    assert.equal(storeOf('store: postgres://edge@127.0.0.1/postern'), 'postgres://edge@127.0.0.1/postern')
    const files = { ...FILES, readSecret: () => PASSWORD }
    for (const url of ['postgres://edge@db.mycorp.com/postern', 'postgres:///postern?host=/run/postgresql']) {
      const store = storeOf(`store: ${url}\nstore_password_file: pw\n`, files)
      const location = parseStoreLocation(store)
      assert.equal(location.kind === 'postgres' && location.password, PASSWORD)
      assert.doesNotMatch(describeStore(store), /p&ss|p%26ss/)
    }
  })

  it('always checks the certificate of a database on another machine', () => {
    const tlsOf = (url: string) => {
      const location = parseStoreLocation(url)
      return location.kind === 'postgres' && location.tls
    }
    assert.deepEqual(tlsOf('postgres://edge@db/postern'), {})
    assert.deepEqual(tlsOf('postgres://edge@db/postern?sslrootcert=/ca.pem'), { rootFile: '/ca.pem' })
    assert.equal(tlsOf('postgres://edge@[::1]/postern'), undefined)
    assert.match(problemOf('postgres://edge@db/postern?sslmode=disable'), /leaves this machine without TLS/)
    for (const mode of ['no-verify', 'require', 'prefer', 'allow', 'verify-ca']) {
      assert.match(problemOf(`postgres://edge@localhost/postern?sslmode=${mode}`), /is always checked/)
    }
    for (const parameter of ['uselibpqcompat=true', 'ssl=0', 'rejectUnauthorized=false', 'options=-c']) {
      assert.match(problemOf(`postgres://edge@db/postern?${parameter}`), /unknown parameter/)
    }
  })

  it('is refused when it says nowhere, and in a file that others may read when it has a password', () => {
    assert.match(problemOf('postgres:///postern'), /has no host/)
    assert.match(problemOf('postgres://edge@db'), /has no database name/)
    assert.match(problemOf('postgres://e:p%zz@db/x'), /write %25/)
    const open = { ...FILES, checkOwnMode: () => assert.fail('can be read by others') }
    const problems = problemsOf(`${DEV}store: postgres://edge:hunter2@localhost/postern\n`, open)
    assert.match(problems[0]!.message, /has a password, and this file can be read by others/)
    assert.doesNotMatch(JSON.stringify(problems), /hunter2/)
  })
})
