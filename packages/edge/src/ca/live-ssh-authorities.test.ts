import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, beforeEach, describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { verifySshAuthorityList } from '@postern/shared/certs/ssh-authority-list'
import { TestLog } from '../../test/edge-stage.ts'
import { LiveSshAuthorities } from './live-ssh-authorities.ts'
import { endOverlap, rotateAuthorities } from './rotate.ts'
import { openSshAuthorities } from './ssh-authorities.ts'

const DAY_MS = 86_400_000
const NOW = Date.UTC(2026, 0, 1)
const TTL_MS = 300_000
const domain = 'edge.example.com'
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-live-ssh-'))
after(() => rmSync(scratch, { recursive: true }))

let dataDir: string
let now: number
const log = new TestLog()

beforeEach(() => {
  now = NOW
  dataDir = mkdtempSync(path.join(scratch, 'data-'))
  mkdirSync(path.join(dataDir, 'ca'))
})

async function until(what: string, look: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 30_000; !look(); await pause(20)) {
    assert.ok(performance.now() < deadline, `not in time: ${what}`)
  }
}

const open = () =>
  LiveSshAuthorities.open(dataDir, 'ed25519', { lock: undefined, clock: () => now, log, domain })
const rotate = () =>
  rotateAuthorities(dataDir, ['ssh-user'], {
    now,
    signsInMs: () => DAY_MS,
    overlapMs: () => 7 * DAY_MS,
    sshKeyType: 'ecdsa',
    lock: undefined,
  })

describe('the CAs of ssh of a running edge', () => {
  it('follow the clock, and say so under the key of each', async () => {
    using authorities = await open()
    const old = authorities.user
    const verify = (jws: string, by: string) =>
      verifySshAuthorityList(jws, { kind: 'user', domain, by, now }).map(({ ca }) => ca)
    const [alone] = authorities.signedLists('user')
    assert.deepEqual(verify(alone!, old.line), [old.line])

    await rotate()
    await until('it is believed', () => authorities.trusted('user').length === 2)
    const [, next] = authorities.trusted('user')
    assert.equal(next!.publicKey.type, 'ecdsa-sha2-nistp256')
    assert.equal(authorities.user, old)
    const lists = authorities.signedLists('user')
    assert.equal(lists.length, 2)
    assert.equal(authorities.signedLists('user'), lists, 'signed once for all who ask')
    assert.deepEqual(verify(lists[0]!, old.line), [old.line, next!.line])
    assert.deepEqual(verify(lists[1]!, next!.line), [old.line, next!.line])
    assert.deepEqual(authorities.lines('host'), [authorities.host.line])

    now = NOW + DAY_MS
    await until('it signs', () => authorities.user === next)
    now = NOW + 8 * DAY_MS
    await until('it is alone', () => authorities.trusted('user').length === 1)
    assert.deepEqual(verify(authorities.signedLists('user')[0]!, next!.line), [next!.line])
  })

  it('are found again at the next start, and those that are over are deleted', async () => {
    const first = await openSshAuthorities(dataDir, 'ed25519', undefined, now)
    await rotate()
    now += 9 * DAY_MS
    const second = await openSshAuthorities(dataDir, 'ed25519', undefined, now)
    assert.notEqual(second.user.line, first.user.line)
    assert.equal(second.host.line, first.host.line)
    await rotate()
    for (const suffix of ['key', 'pub']) {
      assert.ok(!existsSync(path.join(dataDir, 'ca', `ssh-user-ca.${suffix}`)))
    }
    using authorities = await open()
    assert.equal(authorities.user.line, second.user.line)
    assert.ok(!existsSync(path.join(dataDir, 'ca', 'ssh-user-ca.key')), 'no other one is made')
    assert.equal(authorities.trusted('user').length, 2)
  })

  it('give old servers the list of the old one while what it signed may be valid', async () => {
    using authorities = await open()
    const old = authorities.user
    const ofOldServers = () => authorities.usersCaOfOldServers(now, TTL_MS)
    assert.equal(ofOldServers(), old)
    await rotate()
    await until('it is believed', () => authorities.trusted('user').length === 2)
    assert.equal(ofOldServers(), old)
    now = NOW + DAY_MS
    await until('it signs', () => authorities.user !== old)
    assert.equal(ofOldServers(), old)
    now += TTL_MS
    assert.equal(ofOldServers(), authorities.user)
    assert.equal(await endOverlap(dataDir, ['ssh-user', 'ssh-host'], now), 1)
    await until('the old one is over', () => authorities.trusted('user').length === 1)
    assert.equal(ofOldServers(), authorities.user)
  })
})
