import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Page } from 'playwright-core'
import { findFreePort } from '../demo/free-port.ts'
import type { Program } from '../demo/program.ts'
import { type Chromium, startChromium } from './support/chromium.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** A person, real Chromium, and a real OpenID provider that knows nothing of Postern. */

const ANN = { sub: 'a1', email: 'ann@mycorp.com', email_verified: true, groups: ['dev'], hd: 'mycorp.com' }

describe('sign-in in the browser at the company’s provider', () => {
  let provider: UpstreamProvider
  let edge: EdgeProcess
  let chromium: Chromium

  before(async () => {
    const port = await findFreePort()
    provider = await startUpstreamProvider({
      edgeOrigin: `https://edge.localhost:${port}`,
      accounts: {
        ann: ANN,
        unverified: { ...ANN, sub: 'u1', email: 'unverified@mycorp.com', email_verified: false },
        outsider: { ...ANN, sub: 'o1', email: 'outsider@elsewhere.example' },
        visitor: { ...ANN, sub: 'v1', email: 'visitor@mycorp.com', hd: 'elsewhere.example' },
      },
    })
    const keys = {
      scopes: ['openid', 'email', 'groups'],
      email_domains: ['mycorp.com'],
      required_claims: { hd: 'mycorp.com' },
    }
    edge = await startEdge({ port, identity: { ...provider.identity, keys } })
    chromium = await startChromium({ caFile: edge.caFile })
  })
  after(async () => {
    await chromium?.[Symbol.asyncDispose]()
    await edge?.[Symbol.asyncDispose]()
    await provider?.[Symbol.asyncDispose]()
  })

  /** Starts `postern login` and opens the page it prints. */
  async function openLogin(page: Page): Promise<{ home: string; login: Program }> {
    const home = makeTempFolder('home')
    const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--no-browser']
    const login = spawnPostern(args, { home, stdin: '' })
    const [url] = await login.matches(/https:\/\/edge\.localhost:\d+\/oauth\/\S+/)
    await page.goto(url)
    return { home, login }
  }

  async function signInAtCompany(page: Page, account: string): Promise<void> {
    await page.waitForURL(`${provider.issuer}/**`)
    await page.fill('input[name=login]', account)
    await page.click('button[type=submit]')
    await page.waitForURL(`${edge.origin}/**`)
  }

  test('a person signs in, sees what they agree to, and is who the provider says', async () => {
    const page = await chromium.newPage()
    const { home, login } = await openLogin(page)
    await signInAtCompany(page, 'ann')
    const asked = await page.innerText('body')
    for (const shown of ['ann@mycorp.com', provider.issuer, '127.0.0.1'])
      assert.ok(asked.includes(shown), asked)
    await page.getByRole('button', { name: /continue/i }).click()
    await page.waitForURL('http://127.0.0.1:*/**')
    assert.match(await page.innerText('body'), /you are signed in/i)
    const { code, stderr } = await login.ended
    assert.equal(code, 0, stderr)

    const whoami = await runPostern(['whoami', '--json'], { home })
    const { identity } = JSON.parse(whoami.stdout)
    assert.deepEqual(identity, {
      issuer: provider.issuer,
      subject: 'a1',
      email: 'ann@mycorp.com',
      groups: ['dev'],
    })
    await page.close()
  })

  test('somebody who is signed in at the company already is asked all the same', async () => {
    const page = await chromium.newPage()
    const { login } = await openLogin(page) // the provider remembers ann from before and shows no page
    await page.waitForURL(`${edge.origin}/**`)
    await page.getByRole('button', { name: /continue as ann@mycorp\.com/i }).waitFor()
    assert.ok(login.isRunning, 'a code was given without a click')
    await login.stop('SIGINT')
    await page.close()
  })

  for (const [account, why, reason] of [
    ['unverified', 'the provider has not verified the address', /unverified@mycorp\.com/],
    ['outsider', 'the provider may not vouch for the domain', /elsewhere\.example/],
    ['visitor', 'a required claim is another', /hd/],
  ] as const) {
    test(`turned away: ${why}`, async () => {
      const page = await chromium.newPage()
      await chromium.context.clearCookies()
      const { home, login } = await openLogin(page)
      await signInAtCompany(page, account)
      assert.match(await page.innerText('body'), /LOGIN_REFUSED/)
      assert.equal(await page.getByRole('button', { name: /continue/i }).count(), 0)
      // the terminal says what the page says, once the person gives up there
      await page.getByRole('button', { name: /give up/i }).click()
      const { code, stderr } = await login.ended
      assert.equal(code, 5, stderr)
      assert.match(stderr, /LOGIN_REFUSED/)
      assert.match(stderr, reason)
      assert.equal((await runPostern(['whoami'], { home })).code, 4)
      await page.close()
    })
  }
})
