import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import { ErrorFrame } from './control-frames.ts'
import { readErrorFrame } from './error-frame.ts'

test('the check by hand takes exactly what the schema takes', () => {
  const bodies: unknown[] = [
    { code: 'SERVICE_OFFLINE', message: 'the service is offline', hint: 'start it' },
    { code: 'SERVICE_OFFLINE' },
    { code: 'SERVICE_OFFLINE', flowId: '0b6f' },
    { code: 'SERVICE_OFFLINE', flowId: '' },
    { code: 'SERVICE_OFFLINE', flowId: 7 },
    { code: 'OF_A_LATER_VERSION', message: 'what', more: 1 },
    { code: 'A'.repeat(128) },
    { code: 'A'.repeat(129) },
    { code: 'A', message: 'm'.repeat(2_000) },
    { code: 'A', message: 'm'.repeat(2_001) },
    { code: 'A', hint: 1 },
    { code: 'A', message: null },
    { code: '' },
    { code: 7 },
    {},
    [],
    null,
    'text',
    1,
  ]
  for (const body of bodies) {
    const fits = v.safeParse(ErrorFrame, body).success
    if (fits) assert.ok(readErrorFrame(body).message, JSON.stringify(body))
    else assert.throws(() => readErrorFrame(body), { code: 'PROTOCOL_INVALID' }, JSON.stringify(body))
  }
})

test('an unknown code becomes FLOW_CUT and stays readable', () => {
  const error = readErrorFrame({ code: 'OF_A_LATER_VERSION', message: 'what happened' })
  assert.equal(error.code, 'FLOW_CUT')
  assert.match(error.message, /what happened \(OF_A_LATER_VERSION\)/)
})
