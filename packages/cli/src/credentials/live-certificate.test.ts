import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { LiveCertificate, type SignInEvent } from './live-certificate.ts'
import { SignInDesk } from './sign-in-desk.ts'

const ended = () => new PosternError('SESSION_ENDED', 'your session has ended')

/** @param answers what the edge says to each fetch, in this order */
function createStage(
  answers: (() => Promise<string>)[],
  options: { mayAsk?: boolean; waitMs?: number; desk?: SignInDesk } = {},
) {
  const events: SignInEvent[] = []
  const fetches: boolean[] = []
  const stage = { stored: undefined as string | undefined, events, fetches, answers }
  const source = {
    read: () => stage.stored,
    fetch: async (mayAsk: boolean) => {
      fetches.push(mayAsk)
      stage.stored = await answers.shift()!()
      return stage.stored
    },
    forget: () => {
      stage.stored = undefined
    },
  }
  const report = (event: SignInEvent) => events.push(event)
  const live = new LiveCertificate(source, { mayAsk: true, report, ...options })
  return Object.assign(stage, { live })
}

describe('the certificate of a program that stays', () => {
  it('is fetched once for all who wait, and again after it was forgotten', async () => {
    const stage = createStage([async () => 'first', async () => 'second'])
    assert.deepEqual(await Promise.all([stage.live.take(), stage.live.take()]), ['first', 'first'])
    assert.equal(await stage.live.take(), 'first')
    stage.live.forget()
    assert.equal(await stage.live.take(), 'second')
    assert.deepEqual(stage.fetches, [false, false])
  })

  it('asks for a sign-in only where somebody can answer', async () => {
    const asking = createStage([() => Promise.reject(ended()), async () => 'signed in'])
    assert.equal(await asking.live.take(), 'signed in')
    assert.deepEqual(asking.fetches, [false, true])
    assert.deepEqual(
      asking.events.map(({ event }) => event),
      ['sign-in.needed'],
    )
    const silent = createStage([() => Promise.reject(ended())], { mayAsk: false })
    await assert.rejects(silent.live.take(), { code: 'SESSION_ENDED' })
    assert.deepEqual([silent.fetches, silent.events], [[false], []])
  })

  it('does not ask for what is denied', async () => {
    const stage = createStage([
      () => Promise.reject(new PosternError('ACCESS_DENIED', 'not available to you')),
    ])
    await assert.rejects(stage.live.take(), { code: 'ACCESS_DENIED' })
    assert.deepEqual([stage.fetches, stage.events], [[false], []])
  })

  it('asks once: after a sign-in that failed the next ones only look whether somebody has signed in', async () => {
    const failed = () => Promise.reject(new PosternError('LOGIN_FAILED', 'the page was closed'))
    const no = () => Promise.reject(ended())
    const stage = createStage([no, failed, no, async () => 'again', no, async () => 'asked again'])
    await assert.rejects(stage.live.take(), { code: 'LOGIN_FAILED' })
    await assert.rejects(stage.live.take(), { code: 'SESSION_ENDED' })
    assert.equal(await stage.live.take(), 'again')
    stage.live.forget()
    assert.equal(await stage.live.take(), 'asked again')
    assert.deepEqual(stage.fetches, [false, true, false, false, false, true])
    assert.deepEqual(
      stage.events.map(({ event }) => event),
      ['sign-in.needed', 'sign-in.failed', 'sign-in.needed'],
    )
  })

  it('keeps nobody waiting for ever, but whoever starts the program', async () => {
    const page = Promise.withResolvers<string>()
    const stage = createStage([() => Promise.reject(ended()), () => page.promise], { waitMs: 20 })
    const first = stage.live.takeFirst()
    await assert.rejects(stage.live.take(), { code: 'SIGN_IN_REQUIRED' })
    page.resolve('signed in')
    assert.equal(await first, 'signed in')
    assert.equal(await stage.live.take(), 'signed in')
  })

  it('calls an edge that does not answer unreachable', async () => {
    const stage = createStage([() => new Promise(() => undefined)], { waitMs: 20 })
    await assert.rejects(stage.live.take(), { code: 'EDGE_UNREACHABLE' })
  })

  it('lets go of who leaves', async () => {
    const stage = createStage([() => new Promise(() => undefined)])
    const left = new AbortController()
    const taking = stage.live.take(left.signal)
    left.abort(new PosternError('FLOW_CUT', 'the program has left'))
    await assert.rejects(taking, { code: 'FLOW_CUT' })
    await assert.rejects(stage.live.take(left.signal), { code: 'FLOW_CUT' })
  })
})

describe('certificates of one edge', () => {
  it('need one sign-in together, and one that failed is not asked for by the next of them', async () => {
    const desk = new SignInDesk()
    const page = Promise.withResolvers<string>()
    const no = () => Promise.reject(ended())
    const first = createStage([no, () => page.promise], { desk })
    const second = createStage([no, async () => 'for the second'], { desk })
    const third = createStage([no, async () => 'for the third'], { desk })
    const taking = [first.live.take(), second.live.take()]
    await new Promise(setImmediate)
    const late = third.live.take()
    await new Promise(setImmediate)
    assert.deepEqual(third.fetches, [], 'waits until nobody is asked')
    third.answers.shift()
    page.resolve('for the first')
    assert.deepEqual(await Promise.all(taking), ['for the first', 'for the second'])
    assert.equal(await late, 'for the third')
    assert.deepEqual([first.fetches, second.fetches, third.fetches], [[false, true], [false, false], [false]])
    const events = [first, second, third].flatMap(({ events }) => events.map(({ event }) => event))
    assert.deepEqual(events, ['sign-in.needed'])
  })

  it('do not open a page each when nobody signs in', async () => {
    const desk = new SignInDesk()
    const no = () => Promise.reject(ended())
    const first = createStage([no, () => Promise.reject(new PosternError('LOGIN_FAILED', 'closed'))], {
      desk,
    })
    const second = createStage([no], { desk })
    await assert.rejects(first.live.take(), { code: 'LOGIN_FAILED' })
    await assert.rejects(second.live.take(), { code: 'SESSION_ENDED' })
    assert.deepEqual(second.fetches, [false])
  })
})
