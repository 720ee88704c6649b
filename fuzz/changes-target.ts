import assert from 'node:assert/strict'
import { type Message, parseMessage } from '../packages/edge/src/store/changes.ts'
import { mutateText } from './mutate.ts'
import type { Random } from './random.ts'
import type { Target } from './target.ts'

/** What edges on one PostgreSQL tell each other: whoever may connect to the database may say something there. */

const EDGE = '00000000-0000-4000-8000-000000000000'
const MESSAGES: readonly Message[] = [
  { kind: 'service', serviceId: 'svc_1' },
  { kind: 'policies' },
  { kind: 'identity', identityId: 'idn_1' },
  { kind: 'service_deleted', serviceId: 'svc_1', label: 'calm-sea-1' },
  { kind: 'service_revoked', serviceId: 'svc_1' },
  { kind: 'person_revoked', identityId: 'idn_1' },
  { kind: 'person_locked', identityId: 'idn_1' },
  { kind: 'session_ended', sessionId: 'ses_1' },
  { kind: 'certificate_revoked', serial: '0a1b' },
  { kind: 'connector_revoked', connectorId: 'con_1', isSuperseded: true },
  { kind: 'flow_cut', flowId: EDGE, by: 'idn_1' },
  { kind: 'here' },
  { kind: 'left' },
  { kind: 'ask', ask: 7 },
  { kind: 'done', to: EDGE, ask: 7 },
]
const WORDS = [
  EDGE,
  '"kind":',
  '"policies"',
  '"here"',
  'null',
  '1e999',
  '-1',
  '{}',
  '[]',
  '__proto__',
  ' ',
  '\n',
]

export const CHANGES_TARGET: Target = {
  name: 'changes',
  cases: 200_000,
  run(random: Random) {
    const message = MESSAGES[random.below(MESSAGES.length)]!
    const payload = `${EDGE} ${JSON.stringify(message)}`
    if (random.oneIn(8)) return void assert.deepEqual(parseMessage(payload), { from: EDGE, message })
    const mutated = mutateText(payload, random, WORDS)
    const heard = parseMessage(mutated)
    if (!heard) return
    assert.ok(mutated.length <= 1_000)
    assert.match(heard.from, /^[0-9a-f-]{36}$/)
    // what was understood says nothing beyond what it may say
    const again = parseMessage(`${heard.from} ${JSON.stringify(heard.message)}`)
    assert.deepEqual(again, heard)
    for (const value of Object.values(heard.message)) {
      assert.ok(typeof value !== 'string' || value.length <= 64)
    }
  },
}
