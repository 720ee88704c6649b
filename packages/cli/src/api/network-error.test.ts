import assert from 'node:assert/strict'
import { test } from 'node:test'
import { explainNetworkError } from './network-error.ts'

const failure = (code: string, more: object = {}) =>
  Object.assign(new Error(`said ${code}`), { code, ...more })

test('foreign errors become ours by their code', () => {
  const table: [string, string][] = [
    ['ECONNREFUSED', 'EDGE_UNREACHABLE'],
    ['ENOTFOUND', 'EDGE_UNREACHABLE'],
    ['ETIMEDOUT', 'EDGE_UNREACHABLE'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'EDGE_UNREACHABLE'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'EDGE_UNTRUSTED'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'EDGE_UNTRUSTED'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'EDGE_UNTRUSTED'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'EDGE_UNTRUSTED'],
    ['CERT_SIGNATURE_FAILURE', 'EDGE_UNTRUSTED'],
    ['CERT_NOT_YET_VALID', 'CLOCK_OFF'],
    ['CERT_HAS_EXPIRED', 'CLOCK_OFF'],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'CERTIFICATE_REFUSED'],
    ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'CERTIFICATE_REFUSED'],
    ['ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_EXPIRED', 'CERTIFICATE_REFUSED'],
  ]
  for (const [code, expected] of table)
    assert.equal(explainNetworkError(failure(code), 'e:1').code, expected, code)
})

test('several addresses were tried: each reason once', () => {
  const errors = [failure('ECONNREFUSED'), failure('ENETUNREACH'), failure('ECONNREFUSED')]
  const error = explainNetworkError(failure('ECONNREFUSED', { errors }), 'edge:443')
  assert.equal(error.message, 'cannot reach edge:443: nothing listens there, there is no route to it')
})

test('who believes a CA that was named once hears what to do when the edge has another one', () => {
  const hintOf = (isPinned: boolean) =>
    explainNetworkError(failure('SELF_SIGNED_CERT_IN_CHAIN'), 'edge:443', { isPinned }).hint
  assert.match(hintOf(true), /--ca-fingerprint sha256:HEX \(or --ca-file FILE\); .*--public-ca/)
  assert.doesNotMatch(hintOf(false), /--public-ca/)
})

test('a wrong clock is told with its distance', () => {
  const now = Date.now()
  const shown = { validFromMs: now + 3 * 86_400_000 + 1_000, validToMs: now + 9 * 86_400_000 }
  const error = explainNetworkError(failure('CERT_NOT_YET_VALID'), 'edge:443', { shown })
  assert.match(error.message, /clock says \d{4}-.*edge:443 begins 3 d later/)
})
