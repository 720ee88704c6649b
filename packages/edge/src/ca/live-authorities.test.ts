import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, beforeEach, describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { TestLog } from '../../test/edge-stage.ts'
import { createAuthorities } from './authorities.ts'
import { Generations } from './generations.ts'
import { LiveAuthorities } from './live-authorities.ts'
import { endOverlap, rotateAuthorities } from './rotate.ts'

const DAY_MS = 86_400_000
const NOW = Date.UTC(2026, 0, 1)
const scratch = mkdtempSync(path.join(tmpdir(), 'postern-live-'))
after(() => rmSync(scratch, { recursive: true }))

let dataDir: string
let now: number
const log = new TestLog()

beforeEach(async () => {
  now = NOW
  dataDir = mkdtempSync(path.join(scratch, 'data-'))
  await createAuthorities(dataDir, now)
})

/** The edge looks every second, and tells nobody when it finds nothing. */
async function until(what: string, look: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 30_000; !look(); await pause(20)) {
    assert.ok(performance.now() < deadline, `not in time: ${what}`)
  }
}

const open = () => new LiveAuthorities(dataDir, { lock: undefined, clock: () => now, log }).start()
const rotate = (signsInMs = DAY_MS) =>
  rotateAuthorities(dataDir, ['client'], {
    now,
    signsInMs: () => signsInMs,
    overlapMs: () => 7 * DAY_MS,
    sshKeyType: 'ed25519',
    lock: undefined,
  })

describe('generations', () => {
  it('sign, are believed and retire by the clock alone', () => {
    const generations = new Generations([{ name: 'a', signsFrom: 0, trustedUntil: null }]).succeededBy('b', {
      signsFrom: 100,
      overlapMs: 50,
    })
    const states = (at: number) => generations.all.map((one) => generations.stateOf(one, at))
    assert.deepEqual(states(99), ['signs', 'next'])
    assert.deepEqual(states(100), ['trusted', 'signs'])
    assert.deepEqual(states(149), ['trusted', 'signs'])
    assert.deepEqual(states(150), ['retired', 'signs'])
    assert.deepEqual(
      generations.trusted(150).map(({ name }) => name),
      ['b'],
    )
  })
})

describe('the CAs of a running edge', () => {
  it('follow the clock: the new one is believed at once, signs later, and is alone in the end', async () => {
    using authorities = await open()
    const first = authorities.client
    const connector = authorities.connector
    let changes = 0
    authorities.onChanged(() => changes++)
    await rotate()
    await until('the new one is believed', () => authorities.trusted('client').length === 2)
    assert.equal(authorities.client, first)
    assert.equal(authorities.bundle('client').match(/BEGIN/g)?.length, 2)
    now += DAY_MS
    await until('it signs', () => authorities.client !== first)
    assert.ok(authorities.trusted('client').includes(first))
    now += 7 * DAY_MS
    await until('it is alone', () => authorities.trusted('client').length === 1)
    assert.deepEqual(authorities.trusted('client'), [authorities.client])
    assert.equal(authorities.certificates('client').length, 1)
    assert.equal(authorities.connector, connector)
    assert.equal(changes, 3)
  })

  it('stay as they are while a file is missing, and follow once it is there', async () => {
    using authorities = await open()
    const first = authorities.client
    // as a copy from another edge that arrives the wrong way round
    const other = path.join(scratch, 'other')
    renameSync(dataDir, other)
    await createAuthorities(dataDir, now)
    for (const name of readdirSync(path.join(other, 'ca')))
      copyFileSync(path.join(other, 'ca', name), path.join(dataDir, 'ca', name))
    const arrived = dataDir
    dataDir = other
    await rotate(0)
    dataDir = arrived
    const names = readdirSync(path.join(other, 'ca')).filter((name) => /^client-ca-/.test(name))
    assert.equal(names.length, 2)
    copyFileSync(path.join(other, 'ca/generations.json'), path.join(dataDir, 'ca/generations.json'))
    await until('it says so', () => log.events('ca.reload_failed').length > 0)
    assert.equal(authorities.client, first)
    for (const name of names) copyFileSync(path.join(other, 'ca', name), path.join(dataDir, 'ca', name))
    await until('it follows', () => authorities.client !== first)
  })
})

describe('a rotation', () => {
  it('waits for the one before, and takes away what nobody believes any more', async () => {
    await rotate()
    await assert.rejects(rotate(), { code: 'CA_ROTATING' })
    now += 8 * DAY_MS
    await rotate()
    const names = readdirSync(path.join(dataDir, 'ca')).filter((name) => name.startsWith('client'))
    assert.ok(!names.includes('client-ca.key'))
    assert.equal(names.length, 4)
  })

  it('may end at once: what has signed before is believed no more, what comes next is', async () => {
    assert.equal(await endOverlap(dataDir, ['client'], now), 0)
    await rotate(0)
    assert.equal(await endOverlap(dataDir, ['client', 'connector'], now), 1)
    using authorities = await open()
    assert.deepEqual(authorities.trusted('client'), [authorities.client])
    await rotate()
    assert.equal(await endOverlap(dataDir, ['client'], now), 0, 'the next one has not signed yet')
  })
})
