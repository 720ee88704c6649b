import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import type { AllowList, Identity } from '@postern/shared/identity'
import { parseServiceLabel } from '@postern/shared/service-label'
import { upsertIdentity } from '../store/identities.ts'
import { openStore, type Store } from '../store/open.ts'
import { createService, deleteService } from '../store/services.ts'
import { claimService } from './claim.ts'
import { generateLabel } from './generate-label.ts'
import { readAllowList } from './read-allow-list.ts'

const NOBODY: AllowList = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
const MYCORP: AllowList = { ...NOBODY, emailDomains: ['mycorp.com'] }
const NOW = 1_000

const hasCode = (code: string) => (error: unknown) => error instanceof PosternError && error.code === code

describe('an allow-list', () => {
  it('is read into its one form: folded, sorted, nothing twice', () => {
    const list = readAllowList({
      emailDomains: ['MyCorp.com', 'a.org', 'mycorp.com'],
      emailAddresses: ['B@x.org', 'a@x.org', 'b@X.org'],
      anyAuthenticated: false,
    })
    assert.deepEqual(list, {
      emailDomains: ['a.org', 'mycorp.com'],
      emailAddresses: ['a@x.org', 'b@x.org'],
      anyAuthenticated: false,
    })
  })

  it('needs a rule', () => {
    assert.throws(() => readAllowList(NOBODY), hasCode('ALLOW_LIST_EMPTY'))
    assert.ok(readAllowList({ ...NOBODY, anyAuthenticated: true }))
  })

  it('is refused whole for one bad entry, and names them all', () => {
    const emailDomains = ['mycorp.com', '*.evil.org', 'a@b.org']
    assert.throws(
      () => readAllowList({ ...NOBODY, emailDomains }),
      (error: unknown) => {
        assert.ok(error instanceof PosternError)
        assert.equal(error.code, 'DOMAIN_INVALID')
        assert.equal(error.message, 'these are not email domains: "*.evil.org", "a@b.org"')
        return true
      },
    )
    assert.throws(
      () => readAllowList({ ...NOBODY, emailAddresses: Array.from({ length: 50 }, (_, n) => `bad ${n}`) }),
      (error: unknown) => error instanceof PosternError && error.message.endsWith('"bad 9", …'),
    )
  })
})

describe('a generated label', () => {
  it('is a label, whatever the dice say', () => {
    for (const pick of [(_below: number) => 0, (below: number) => below - 1]) {
      const label = generateLabel(pick)
      assert.equal(parseServiceLabel(label), label)
      assert.match(label, /^[a-z]+-[a-z]+-\d{4}$/)
    }
    for (let times = 0; times < 1_000; times++) parseServiceLabel(generateLabel())
  })
})

describe('claiming', () => {
  let store: Store
  let owner: Identity
  let other: Identity
  let count = 0

  before(async () => {
    store = await openStore(':memory:')
    owner = await signIn('op@mycorp.com')
    other = await signIn('other@mycorp.com')
  })
  after(() => store.close())

  const signIn = (email: string) =>
    upsertIdentity(
      store.db,
      { issuer: 'https://idp.test', subject: email, email: email as never, groups: [] },
      NOW,
    )
  const newName = () => `name ${count++}`
  const claim = (name: string, more: Partial<Parameters<typeof claimService>[2]> = {}, by = owner) =>
    claimService(store.db, by, { name, replaceAllowList: false, ...more }, NOW)

  it('makes a service once, then finds it by its owner and name', async () => {
    const name = newName()
    const made = await claim(name, { allow: MYCORP })
    assert.equal(made.created, true)
    const found = await claim(name)
    assert.deepEqual([found.created, found.service.id], [false, made.service.id])
    const others = await claim(name, { allow: MYCORP }, other)
    assert.notEqual(others.service.id, made.service.id)
  })

  it('never loosens a list that was tightened meanwhile', async () => {
    const name = newName()
    await claim(name, { allow: MYCORP })
    const looser = { ...MYCORP, anyAuthenticated: true }
    await assert.rejects(claim(name, { allow: looser }), hasCode('ALLOW_LIST_DIFFERS'))
    const replaced = await claim(name, { allow: looser, replaceAllowList: true })
    assert.deepEqual([replaced.before?.allow, replaced.service.allow], [MYCORP, looser])
    const same = await claim(name, { allow: looser, replaceAllowList: true })
    assert.equal(same.before, undefined, 'nothing changed')
  })

  it('keeps the label it has', async () => {
    const name = newName()
    const { service } = await claim(name, { allow: MYCORP, label: `mine-${count}` })
    assert.equal((await claim(name, { label: service.label })).service.id, service.id)
    await assert.rejects(claim(name, { label: 'another-1000' }), hasCode('LABEL_TAKEN'))
    await assert.rejects(
      claim(newName(), { allow: MYCORP, label: service.label }, other),
      hasCode('LABEL_TAKEN'),
    )
  })

  it('is done by several at once without a conflict', async () => {
    const name = newName()
    const claims = await Promise.all(Array.from({ length: 8 }, () => claim(name, { allow: MYCORP })))
    assert.equal(claims.filter(({ created }) => created).length, 1)
    assert.equal(new Set(claims.map(({ service }) => service.id)).size, 1)
  })

  it('makes a new service after the old one was deleted', async () => {
    const name = newName()
    const { service } = await claim(name, { allow: MYCORP })
    await deleteService(store.db, service.id, NOW)
    const again = await claim(name, { allow: MYCORP })
    assert.equal(again.created, true)
    assert.notEqual(again.service.id, service.id)
  })

  it('creates nothing for a label that is none', async () => {
    const name = newName()
    await assert.rejects(claim(name, { allow: MYCORP, label: 'UPPER' }), hasCode('LABEL_INVALID'))
    await assert.rejects(claim(name, { allow: MYCORP, label: 'mtls' }), hasCode('LABEL_INVALID'))
    await createService(
      store.db,
      { label: parseServiceLabel('free-1000'), name, type: 'tls', ownerId: owner.id, allow: MYCORP },
      NOW,
    )
  })
})
