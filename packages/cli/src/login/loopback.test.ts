import assert from 'node:assert/strict'
import http from 'node:http'
import { test } from 'node:test'
import { listenForCallback } from './loopback.ts'

interface Answer {
  status: number
  headers: http.IncomingHttpHeaders
  text: string
}

function request(url: string, options: http.RequestOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    http
      .request(url, options, (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, text }))
      })
      .on('error', reject)
      .end()
  })
}

test('only the right path, state, method and Host are an answer; the login goes on after all others', async () => {
  await using loopback = await listenForCallback('right')
  const { redirectUri } = loopback
  const knocks: [number, string, http.RequestOptions?][] = [
    [404, redirectUri.replace('/callback', '/')],
    [404, redirectUri.replace('/callback', '/done')],
    [400, redirectUri],
    [400, `${redirectUri}?code=c`],
    [400, `${redirectUri}?code=c&state=wrong`],
    [400, `${redirectUri}?state=right`],
    [400, `${redirectUri}?code=c&state=right`, { method: 'POST' }],
    [400, `${redirectUri}?code=c&state=right`, { headers: { host: 'evil.example' } }],
  ]
  for (const [status, url, options] of knocks) {
    assert.equal((await request(url, options)).status, status, url)
  }
  const answer = await request(`${redirectUri}?code=the-code&state=right`)
  assert.equal(answer.status, 303)
  assert.equal(answer.headers.location, '/done')
  assert.equal((await loopback.answer).searchParams.get('code'), 'the-code')
})

test('the page says how it went, carries no code and cannot be played with', async () => {
  await using loopback = await listenForCallback('s')
  await request(`${loopback.redirectUri}?code=the-code&state=s`)
  const page = request(loopback.redirectUri.replace('/callback', '/done'))
  await loopback.finish({ title: 'You are signed in', text: '<script>alert(1)</script>' })
  const { text, headers } = await page
  assert.match(text, /You are signed in/)
  assert.doesNotMatch(text, /<script>|the-code/)
  assert.equal(headers['cache-control'], 'no-store')
  assert.match(String(headers['content-security-policy']), /default-src 'none'.*frame-ancestors 'none'/)
  assert.equal(headers['referrer-policy'], 'no-referrer')
})

test('nothing listens afterwards', async () => {
  const loopback = await listenForCallback('s')
  await loopback[Symbol.asyncDispose]()
  await assert.rejects(request(loopback.redirectUri), { code: 'ECONNREFUSED' })
})
