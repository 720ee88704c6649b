import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseServicesFile } from './services-file.ts'

const parse = (text: string) => parseServicesFile(text, '/etc/postern/connector.yaml')

test('a file of services: each with its own, and paths from its folder', () => {
  const { entries, problems } = parse(`# of this server
services:
  - name: db
    target: 10.0.0.5:5432
    allowed_email_domains: [MyCorp.com]
    allowed_email_addresses: [contractor@example.com]
  - { name: web, target: '[::1]:8443', proxy_protocol: v2, health_check: 5s, label: web-of-us, edge: 'https://edge.example.com' }
  - { name: ssh, target: 'localhost:22', enroll_token_file: ssh.token, ca_file: /etc/ca.pem }
  - { name: quiet, target: 'localhost:22', ssh: false, health_check: 'off', allow_any_authenticated: true }
`)
  assert.deepEqual(problems, [])
  assert.deepEqual(
    entries.map(({ line }) => line),
    [3, 7, 8, 9],
  )
  const [db, web, ssh, quiet] = entries.map(({ settings }) => settings)
  assert.deepEqual(db!.target, { host: '10.0.0.5', port: 5_432 })
  assert.deepEqual(db!.allow, {
    emailDomains: ['mycorp.com'],
    emailAddresses: ['contractor@example.com'],
    anyAuthenticated: false,
  })
  assert.deepEqual(
    [web!.proxyProtocol, web!.label, web!.edge],
    [true, 'web-of-us', 'https://edge.example.com'],
  )
  assert.deepEqual([db!.proxyProtocol, web!.allow, web!.sshServer], [false, undefined, undefined])
  assert.deepEqual([db!.healthCheckMs, web!.healthCheckMs, quiet!.healthCheckMs], [30_000, 5_000, 0])
  assert.deepEqual(ssh!.sshServer, { host: 'localhost', port: 22 })
  assert.deepEqual([ssh!.enrollTokenFile, ssh!.caFile], ['/etc/postern/ssh.token', '/etc/ca.pem'])
  assert.deepEqual([quiet!.sshServer, quiet!.allow?.anyAuthenticated], [undefined, true])
})

test('a bad entry is named with its line, and leaves the others', () => {
  const bad: [string, RegExp][] = [
    ['{ name: b }', /no target/],
    ['{ target: "db:1" }', /no name/],
    ['{ name: b, target: db }', /has no port/],
    ['{ name: b, target: 5432 }', /target must be text/],
    ['{ name: b, target: "db:1", tarjet: x }', /"tarjet" is not a key of an entry, did you mean target\?/],
    ['{ name: b, target: "db:1", allowed-email-domains: [x] }', /did you mean allowed_email_domains\?/],
    ['{ name: b, target: "db:1", comment: x }', /"comment" is not a key of an entry$/],
    ['{ name: "", target: "db:1" }', /"" is no name for a service/],
    ['{ name: "a\\nb", target: "db:1" }', /is no name for a service/],
    ['{ name: b, target: "db:1", public_ca: true }', /enroll token/],
    ['{ name: b, target: "db:1", public_ca: true, ca_file: x, enroll_token_file: y }', /more than one way/],
    ['{ name: b, target: "db:1", allowed_email_domains: mycorp.com }', /must be a list of texts/],
    ['{ name: b, target: "db:1", allowed_email_domains: [1] }', /must be a list of texts/],
    ['{ name: b, target: "db:1", allowed_email_domains: ["@mycorp.com"] }', /@mycorp\.com/],
    ['{ name: b, target: "db:1", proxy_protocol: v1 }', /can only be v2/],
    ['{ name: b, target: "db:1", label: UPPER }', /UPPER/],
    ['{ name: b, target: "db:1", health_check: 1ms }', /health check|duration/],
    ['{ name: b, target: "db:1", health_check: 2h }', /too often or too seldom/],
    ['{ name: b, target: "db:1", edge: "http://x" }', /not the address of an edge/],
    ['{ name: b, target: "unix:/run/db", ssh: true }', /socket/],
    ['{ name: b, target: "db:1", ca_file: x }', /enroll token/],
    ['{ name: b, target: "db:1", ca_fingerprint: x, enroll_token_file: y }', /fingerprint/],
    ['{ name: b, target: "db:1", replace_allow_list: true, enroll_token_file: y }', /person/],
    ['{ name: a, target: "db:1" }', /stands in line 2 already/],
    ['just text', /section/],
  ]
  for (const [entry, why] of bad) {
    const { entries, problems } = parse(
      `services:\n  - { name: a, target: 'db:1' }\n  - ${entry}\n  - { name: c, target: 'db:3' }\n`,
    )
    assert.deepEqual(
      problems.map(({ line }) => line),
      [3],
      entry,
    )
    assert.match(problems[0]!.error.message, why)
    assert.deepEqual(
      entries.map(({ settings }) => settings.name),
      ['a', 'c'],
      entry,
    )
  }
  for (const text of [
    '',
    'services: []',
    'services: {}',
    '- a',
    'edge: x',
    'services: [',
    'services: &a [*a]',
  ])
    assert.ok(parse(text).problems.length > 0, text)
})
