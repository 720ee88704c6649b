import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as v from 'valibot'
import { x509 } from '../ca/x509.ts'
import { RenewalInfo } from './messages.ts'
import { certificateId, RenewalPlan } from './renewal-plan.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** Certificates have no parts of seconds. */
const NOW = Math.floor(Date.now() / 1_000) * 1_000

/** RFC 9773, appendix A. */
const EXAMPLE = `-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----
`

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
const authorityKey = await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey)

async function certificateOf(
  lifeMs: number,
  extensions = [authorityKey],
  serialNumber = '01',
): Promise<string> {
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...{ serialNumber, keys, signingAlgorithm: algorithm, extensions },
    notBefore: new Date(NOW),
    notAfter: new Date(NOW + lifeMs),
  })
  return certificate.toString('pem')
}

async function planOf(lifeMs: number, random = 0.5) {
  const clock = { now: NOW }
  const plan = new RenewalPlan({ clock: () => clock.now, random: () => random, minAskMs: 60_000 })
  plan.follow(await certificateOf(lifeMs))
  return { plan, clock }
}

const windowOf = (start: number, end: number) => ({ suggestedWindow: { start: NOW + start, end: NOW + end } })

describe('the next certificate is ordered', () => {
  it('when a third of the life is left, or a little sooner, where the CA advises nothing', async () => {
    for (const [random, expected] of [
      [0, 60],
      [1, 52.5],
    ] as const) {
      const { plan } = await planOf(90 * DAY_MS, random)
      assert.equal(plan.askAt, 0, 'and it is asked at once')
      assert.equal(plan.advise(undefined), false)
      assert.equal(plan.dueAt, NOW + expected * DAY_MS)
      assert.equal(plan.askAt, Number.POSITIVE_INFINITY)
    }
  })

  it('within the window that the CA advises, at a time of its own', async () => {
    for (const [random, day] of [
      [0, 10],
      [0.25, 11],
      [1, 14],
    ] as const) {
      const { plan } = await planOf(90 * DAY_MS, random)
      assert.equal(plan.advise(windowOf(10 * DAY_MS, 14 * DAY_MS)), true)
      assert.equal(plan.dueAt, NOW + day * DAY_MS)
    }
  })

  it('at the same time while the advice is the same, at another when it changes', async () => {
    let random = 0.5
    const plan = new RenewalPlan({ clock: () => NOW, random: () => random, minAskMs: 1 })
    plan.follow(await certificateOf(90 * DAY_MS))
    plan.advise(windowOf(10 * DAY_MS, 14 * DAY_MS))
    random = 0
    assert.equal(plan.advise(windowOf(10 * DAY_MS, 14 * DAY_MS)), false)
    assert.equal(plan.dueAt, NOW + 12 * DAY_MS)
    assert.equal(plan.advise(windowOf(1 * DAY_MS, 2 * DAY_MS)), true)
    assert.equal(plan.dueAt, NOW + DAY_MS)
    plan.follow(await certificateOf(60 * DAY_MS))
    assert.equal(plan.window, undefined)
    assert.equal(plan.dueAt, NOW + 40 * DAY_MS)
  })

  it('never too late to try again, and not in a circle, whatever is advised', async () => {
    const { plan } = await planOf(90 * DAY_MS)
    plan.advise(windowOf(-9 * DAY_MS, -8 * DAY_MS)) // as when all of a CA are revoked
    assert.equal(plan.dueAt, NOW + 6 * HOUR_MS)
    plan.advise(windowOf(89 * DAY_MS, 400 * DAY_MS))
    assert.equal(plan.dueAt, NOW + 82.5 * DAY_MS)
    const short = await planOf(24 * HOUR_MS)
    short.plan.advise(windowOf(-2, -1))
    assert.equal(short.plan.dueAt, NOW + 2 * HOUR_MS)
  })

  it('with the CA asked again when it says, within reason, and not about what has expired', async () => {
    const { plan, clock } = await planOf(10 * DAY_MS)
    const asked = (retryAfterMs?: number) => {
      plan.advise({ ...windowOf(1, 2), retryAfterMs })
      return plan.askAt - clock.now
    }
    assert.equal(asked(), 6 * HOUR_MS)
    assert.equal(asked(2 * HOUR_MS), 2 * HOUR_MS)
    assert.equal(asked(0), 60_000)
    assert.equal(asked(7 * DAY_MS), DAY_MS)
    const { dueAt } = plan
    plan.adviceFailed()
    assert.equal(plan.askAt - clock.now, 6 * HOUR_MS)
    plan.adviceFailed(3 * DAY_MS)
    assert.equal(plan.askAt - clock.now, 3 * DAY_MS)
    assert.equal(plan.dueAt, dueAt)
    clock.now += 9.9 * DAY_MS
    assert.equal(asked(), Number.POSITIVE_INFINITY)
  })
})

describe('a certificate is called', () => {
  it('by key identifier and serial, as in the example of RFC 9773', () => {
    assert.equal(certificateId(EXAMPLE), 'aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE')
  })

  it('nothing where it names no issuing key; then nobody is asked', async () => {
    const bare = await certificateOf(DAY_MS, [])
    assert.equal(certificateId(bare), undefined)
    const plan = new RenewalPlan({ clock: () => NOW, random: () => 0, minAskMs: 1 })
    plan.follow(bare)
    assert.equal(plan.askAt, Number.POSITIVE_INFINITY)
  })
})

describe('renewal information', () => {
  it('has times with their zone, one before the other', () => {
    const isGood = (start: unknown, end: unknown) => v.is(RenewalInfo, { suggestedWindow: { start, end } })
    assert.equal(isGood('2026-11-26T00:00:00Z', '2026-11-26T00:00:00.5+00:00'), true)
    for (const [start, end] of [
      ['2026-11-26T00:00:00Z', '2026-11-26T00:00:00Z'],
      ['2026-11-27T00:00:00Z', '2026-11-26T00:00:00Z'],
      ['2026-11-26', '2026-11-27'],
      ['2026-11-26T00:00:00', '2026-11-27T00:00:00'],
      ['2026-13-26T00:00:00Z', '2027-11-27T00:00:00Z'],
      [0, 1],
      [undefined, undefined],
    ])
      assert.equal(isGood(start, end), false, `${start} ${end}`)
  })

  it('may say why on a page by https, and only there', () => {
    const suggestedWindow = { start: '2026-11-26T00:00:00Z', end: '2026-11-27T00:00:00Z' }
    const why = (explanationURL: unknown) =>
      v.parse(RenewalInfo, { suggestedWindow, explanationURL }).explanationURL
    assert.equal(why('https://ca.test/why'), 'https://ca.test/why')
    assert.equal(why('javascript:alert(1)'), undefined)
    assert.equal(why(7), undefined)
  })
})
