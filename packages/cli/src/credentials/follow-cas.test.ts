import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { EdgeAuthority } from '@postern/shared/api/session'
import { createCa, crossSign } from '../../test/certificates.ts'
import { fingerprintOf, fingerprintsOf, newestCa } from './edge-cas.ts'
import { acceptCas } from './follow-cas.ts'

const NAME = 'Postern edge CA 1'
const HOUR_MS = 3_600_000
const [a, b, c, stranger] = [createCa(NAME), createCa(NAME), createCa(NAME), createCa(NAME)]

const offer = (certificate: string, crossCertificate?: string): EdgeAuthority =>
  crossCertificate === undefined ? { certificate } : { certificate, crossCertificate }
const [offeredA, offeredB] = [offer(a.certificatePem), offer(b.certificatePem, crossSign(b, a))]
const offeredC = offer(c.certificatePem, crossSign(c, b))
const accept = (pinned: string, ...offered: EdgeAuthority[]) =>
  fingerprintsOf(acceptCas(pinned, offered, Date.now()))
const names = (...pems: string[]) => fingerprintsOf(pems.join(''))

describe('who believes the CA of an edge', () => {
  it('believes its successor too, which it has signed', () => {
    assert.equal(accept(a.certificatePem, offeredA, offeredB), names(a.certificatePem, b.certificatePem))
    assert.equal(accept(a.certificatePem, offeredA), names(a.certificatePem))
  })

  it('forgets it once the edge does', () => {
    assert.equal(accept(a.certificatePem + b.certificatePem, offeredB), names(b.certificatePem))
    assert.equal(accept(a.certificatePem, offeredB), names(b.certificatePem), 'in one step')
  })

  it('does not come to believe the one before it', () => {
    assert.equal(accept(b.certificatePem, offeredA, offeredB), names(b.certificatePem))
  })

  it('follows over several', () => {
    assert.equal(
      accept(a.certificatePem, offeredA, offeredB, offeredC),
      names(a.certificatePem, b.certificatePem, c.certificatePem),
    )
  })

  const forged: [string, EdgeAuthority][] = [
    ['that nobody signed', offer(stranger.certificatePem)],
    ['that another CA of this name signed', offer(b.certificatePem, crossSign(b, stranger))],
    ['that only signed itself', offer(stranger.certificatePem, stranger.certificatePem)],
    ['with the cross-certificate of another', offer(stranger.certificatePem, crossSign(b, a))],
    ['whose cross-certificate is none of a CA', offer(b.certificatePem, crossSign(b, a, { isCa: false }))],
    [
      'whose cross-certificate has run out',
      offer(b.certificatePem, crossSign(b, a, { notAfter: Date.now() - HOUR_MS / 2 })),
    ],
    [
      'whose cross-certificate is not valid yet',
      offer(b.certificatePem, crossSign(b, a, { notBefore: Date.now() + HOUR_MS / 2 })),
    ],
    ['that is no root', offer(crossSign(b, a), crossSign(b, a))],
    ['that cannot be read', offer('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')],
  ]
  for (const [what, offered] of forged) {
    it(`does not believe one ${what}`, () => {
      assert.throws(() => accept(a.certificatePem, offeredA, offered), { code: 'EDGE_UNTRUSTED' })
      assert.throws(() => accept(a.certificatePem, offered), { code: 'EDGE_UNTRUSTED' }, 'alone')
    })
  }

  it('keeps what it has when the edge names nobody', () => {
    assert.throws(() => accept(a.certificatePem), { code: 'EDGE_UNTRUSTED' })
  })
})

it('the newest CA is the one that stays', () => {
  const both = a.certificatePem + b.certificatePem
  assert.equal(fingerprintOf(newestCa(both)), names(b.certificatePem))
  assert.throws(() => newestCa('no certificate'))
})
