import assert from 'node:assert/strict'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { test } from 'node:test'
import { showConfirm, showDevSignIn, showError } from './pages.ts'

const EVIL = `"><script>alert('1')</script>\`&amp;`

function response(): ServerResponse {
  return new ServerResponse(new IncomingMessage(new Socket()))
}

test('nothing that comes from outside becomes markup', () => {
  const retry = { anotherAccountPath: EVIL, cancelPath: EVIL, redirectOrigin: 'http://127.0.0.1:1' }
  const pages = [
    showConfirm(response(), {
      email: EVIL,
      issuer: EVIL,
      clientName: EVIL,
      clientAddress: EVIL,
      redirectOrigin: 'http://127.0.0.1:1',
      confirmPath: EVIL,
      anotherAccountPath: EVIL,
    }),
    showDevSignIn(response(), { actionPath: EVIL, problem: EVIL }),
    showError(response(), { code: 'LOGIN_FAILED', message: EVIL, hint: EVIL, retry }),
  ]
  for (const page of pages) {
    assert.doesNotMatch(page, /<script|alert\('|`/)
    assert.match(page, /&quot;&gt;&lt;script&gt;/)
    assert.match(page, /&amp;amp;/)
  }
})

test('the form may lead to the command line and nowhere else', () => {
  const res = response()
  showError(res, { code: 'LOGIN_FAILED', message: 'x', hint: 'y' })
  assert.match(String(res.getHeader('content-security-policy')), /form-action 'self';/)
  const retry = { anotherAccountPath: '/', cancelPath: '/', redirectOrigin: 'http://127.0.0.1:5' }
  showError(res, { code: 'LOGIN_FAILED', message: 'x', hint: 'y', retry })
  assert.match(
    String(res.getHeader('content-security-policy')),
    /form-action 'self' http:\/\/127\.0\.0\.1:5;/,
  )
})
