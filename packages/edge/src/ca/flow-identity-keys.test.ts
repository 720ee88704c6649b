import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, beforeEach, describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { flowIdentityJwk } from '@postern/shared/proxy-protocol/flow-identity'
import { TestLog } from '../../test/edge-stage.ts'
import { FlowIdentityKeys, readFlowIdentityKeys } from './flow-identity-keys.ts'
import type { KeyLock } from './key-file.ts'
import { endOverlap, rotateAuthorities } from './rotate.ts'

const DAY_MS = 86_400_000
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-flow-identity-'))
after(() => rmSync(scratch, { recursive: true }))

let dataDir: string
let now: number
const log = new TestLog()
const LOCK: KeyLock = { file: '/etc/passphrase', passphrase: 'a long enough passphrase' }

beforeEach(() => {
  now = Date.UTC(2026, 0, 1)
  dataDir = mkdtempSync(path.join(scratch, 'data-'))
  mkdirSync(path.join(dataDir, 'ca'))
})

async function until(what: string, look: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 30_000; !look(); await pause(20)) {
    assert.ok(performance.now() < deadline, `not in time: ${what}`)
  }
}

const open = (lock?: KeyLock) => FlowIdentityKeys.open(dataDir, { lock, clock: () => now, log })
const rotate = (lock?: KeyLock) =>
  rotateAuthorities(dataDir, ['flow-identity'], {
    now,
    signsInMs: () => DAY_MS,
    overlapMs: () => 7 * DAY_MS,
    sshKeyType: 'ed25519',
    lock,
  })
const ids = (keys: FlowIdentityKeys) => keys.jwks().map(({ kid }) => kid)
const files = () => readdirSync(path.join(dataDir, 'ca')).filter((name) => name.endsWith('.key'))

describe('keys of flow identities', () => {
  it('are made once, and opened again', async () => {
    using keys = await open()
    using again = await open()
    assert.deepEqual([again.signing.id, ids(again)], [keys.signing.id, [keys.signing.id]])
    assert.deepEqual(files(), ['flow-identity.key'])
  })

  it('take over from each other by the clock, shown before they sign and as long as they are believed', async () => {
    using keys = await open()
    const old = keys.signing.id
    await rotate()
    await until('the next one is shown', () => ids(keys).length === 2)
    const [, next] = ids(keys)
    assert.deepEqual([ids(keys)[0], keys.signing.id], [old, old])
    assert.deepEqual(keys.dated(), [
      { name: old, signsFrom: 0, trustedUntil: now + 8 * DAY_MS },
      { name: next, signsFrom: now + DAY_MS, trustedUntil: null },
    ])
    await assert.rejects(rotate(), { code: 'CA_ROTATING' })
    now += DAY_MS
    await until('it signs', () => keys.signing.id === next)
    assert.deepEqual(ids(keys), [old, next])
    assert.equal(flowIdentityJwk(keys.signing.key).kid, next)
    now += 7 * DAY_MS
    await until('the old one is gone', () => ids(keys).join() === next)
    await rotate()
    assert.equal(
      existsSync(path.join(dataDir, 'ca', 'flow-identity.key')),
      false,
      'it is of use to a thief only',
    )
  })

  it('are believed no more at once when one was stolen', async () => {
    using keys = await open()
    const old = keys.signing.id
    await rotate()
    now += DAY_MS
    await until('the next one signs', () => keys.signing.id !== old)
    assert.equal(await endOverlap(dataDir, ['flow-identity'], now), 1)
    await until('nobody is shown the old one', () => !ids(keys).includes(old))
  })

  it('are encrypted where a passphrase is named, the next one too, and a plain one is refused then', async () => {
    {
      using keys = await open(LOCK)
      await rotate(LOCK)
      await until('the next one is there', () => ids(keys).length === 2)
    }
    assert.equal(files().length, 2)
    for (const file of files()) {
      assert.match(
        readFileSync(path.join(dataDir, 'ca', file), 'utf8'),
        /^-----BEGIN ENCRYPTED PRIVATE KEY-----/,
      )
    }
    assert.equal((await readFlowIdentityKeys(dataDir, LOCK, now)).length, 2)
    await assert.rejects(open(), { code: 'CA_KEY_LOCKED' })
    const { privateKey } = generateKeyPairSync('ed25519')
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
    writeFileSync(path.join(dataDir, 'ca', 'flow-identity.key'), pem, { mode: 0o600 })
    await assert.rejects(open(LOCK), { code: 'CONFIG_INVALID', message: /is not encrypted/ })
  })

  it('are of one kind', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
    writeFileSync(path.join(dataDir, 'ca', 'flow-identity.key'), pem, { mode: 0o600 })
    await assert.rejects(open(), { code: 'CONFIG_INVALID', message: /it is a key of ec/ })
  })
})
