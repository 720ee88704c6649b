import assert from 'node:assert/strict'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Page } from 'playwright-core'
import { findFreePort } from '../demo/free-port.ts'
import { type Chromium, startChromium } from './support/chromium.ts'
import { connectService } from './support/connect-service.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** How a page gets from the command line to the person, and what the person reads there. The provider tells who
 *  somebody is at its userinfo endpoint only, as many do. */

describe('postern login and the browser', () => {
  let provider: UpstreamProvider
  let edge: EdgeProcess
  let chromium: Chromium

  before(async () => {
    const port = await findFreePort()
    const ann = { sub: 'a1', email: 'ann@mycorp.com', email_verified: true, groups: ['dev', 'on-call'] }
    provider = await startUpstreamProvider({
      edgeOrigin: `https://edge.localhost:${port}`,
      accounts: { ann, eve: { ...ann, sub: 'e1', email: 'eve@mycorp.com', email_verified: false } },
      claimsInIdToken: false,
    })
    const keys = { scopes: ['openid', 'email', 'groups'], email_domains: ['mycorp.com'] }
    edge = await startEdge({ port, identity: { ...provider.identity, keys } })
    chromium = await startChromium({ caFile: edge.caFile })
  })
  after(async () => {
    await chromium?.[Symbol.asyncDispose]()
    await edge?.[Symbol.asyncDispose]()
    await provider?.[Symbol.asyncDispose]()
  })

  const login = (origin = edge) => ['login', '--edge', origin.origin, '--ca-file', origin.caFile]

  /** A program that keeps its arguments for the test, one per line. */
  function makeBrowser(folder: string): { command: string; opened(): Promise<string[]> } {
    const command = path.join(folder, 'browser')
    const kept = path.join(folder, 'opened')
    writeFileSync(command, `#!/bin/sh\nprintf '%s\\n' "$@" > ${kept}.part\nmv ${kept}.part ${kept}\n`)
    chmodSync(command, 0o755)
    const opened = () =>
      until(
        'the browser is started',
        () => existsSync(kept) && readFileSync(kept, 'utf8').trimEnd().split('\n'),
      )
    return { command, opened }
  }

  async function signInAtCompany(page: Page, account: string): Promise<void> {
    await page.waitForURL(`${provider.issuer}/**`)
    await page.fill('input[name=login]', account)
    await page.click('button[type=submit]')
    await page.waitForURL(`${edge.origin}/**`)
  }

  test('a whole login, and then a service', async () => {
    const home = makeTempFolder('home')
    const browser = makeBrowser(home)
    await using program = spawnPostern([...login(), '--browser', browser.command], { home, stdin: '' })
    const [url] = await browser.opened()
    assert.ok(program.stderr.includes(url!), 'the address is on stderr too')
    const page = await chromium.newPage()
    await page.goto(url!)
    await signInAtCompany(page, 'ann')

    const asked = await page.innerText('body')
    for (const shown of ['ann@mycorp.com', 'Postern', '127.0.0.1']) assert.ok(asked.includes(shown), asked)
    assert.deepEqual(await page.locator('form').evaluateAll((forms) => forms.map((form) => form.method)), [
      'post',
    ])
    assert.equal(await page.locator('button, input[type=submit]').count(), 1)
    assert.equal(new URL(page.url()).search, '', 'the address of the page holds nothing of the login')

    await page.getByRole('button').click()
    await page.waitForURL('http://127.0.0.1:*/**')
    assert.match(await page.innerText('body'), /signed in[\s\S]*ann@mycorp\.com[\s\S]*close this tab/)
    const { search, hash } = new URL(page.url())
    assert.equal(search + hash, '', 'a code stayed in the address bar')
    const ended = await within('postern login ends', program.ended)
    assert.equal(ended.code, 0, ended.stderr)
    assert.equal(ended.stdout, '')
    await page.close()

    const whoami = await runPostern(['whoami', '--json'], { home })
    assert.deepEqual(JSON.parse(whoami.stdout).identity.groups, ['dev', 'on-call'])
    await using echo = await startEcho()
    await using service = await connectService({ home, port: echo.port })
    const reached = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'hello' })
    assert.equal(reached.stdout, 'hello', reached.stderr)
  })

  test('who is turned away can tell the command line: exit 5', async () => {
    const home = makeTempFolder('home')
    await chromium.context.clearCookies()
    await using program = spawnPostern([...login(), '--no-browser'], { home, stdin: '' })
    const [url] = await program.matches(/https:\/\/edge\.localhost:\d+\/oauth\/\S+/)
    const page = await chromium.newPage()
    await page.goto(url)
    await signInAtCompany(page, 'eve')
    assert.match(await page.innerText('body'), /has not verified the address eve@mycorp\.com/)
    await page.getByRole('button', { name: /tell the command line/ }).click()
    await page.waitForURL('http://127.0.0.1:*/**')
    assert.match(await page.innerText('body'), /not signed in/i)
    const ended = await within('postern login ends', program.ended)
    assert.equal(ended.code, 5, ended.stderr)
    assert.match(ended.stderr, /LOGIN_REFUSED/)
    await page.close()
  })

  test('a provider that is away: the page says so and what to do', async () => {
    const port = await findFreePort()
    const nobody = await findFreePort()
    const identity = { ...provider.identity, issuer: `http://127.0.0.1:${nobody}` }
    await using lonely = await startEdge({ port, identity })
    await using other = await startChromium({ caFile: lonely.caFile })
    await using program = spawnPostern([...login(lonely), '--no-browser'], {
      home: makeTempFolder('home'),
      stdin: '',
    })
    const [url] = await program.matches(/https:\/\/edge\.localhost:\d+\/oauth\/\S+/)
    const page = await other.newPage()
    await page.goto(url)
    const text = await page.innerText('body')
    assert.match(text, /identity provider does not answer/)
    assert.match(text, /try again in a minute/i)
    assert.ok(!text.includes(String(nobody)), text)
  })

  test('--browser comes before $BROWSER', async () => {
    const [home, otherHome] = [makeTempFolder('home'), makeTempFolder('home')]
    const [wanted, unwanted] = [makeBrowser(home), makeBrowser(otherHome)]
    await using _program = spawnPostern([...login(), '--browser', wanted.command], {
      home,
      stdin: '',
      browser: unwanted.command,
    })
    await wanted.opened()
    assert.ok(!existsSync(path.join(otherHome, 'opened')))
  })

  test('$BROWSER is a list: who cannot be started or fails is followed by the next; %s is the address', async () => {
    const home = makeTempFolder('home')
    const browser = makeBrowser(home)
    await using program = spawnPostern(login(), {
      home,
      stdin: '',
      browser: `/nonexistent/browser:/bin/false:${browser.command} --new-window=%s "two words"`,
    })
    const [url] = await program.matches(/https:\/\/edge\.localhost:\d+\/oauth\/\S+/)
    assert.deepEqual(await browser.opened(), [`--new-window=${url}`, 'two words'])
  })

  test('no shell reads the command', async () => {
    const home = makeTempFolder('home')
    const browser = makeBrowser(home)
    const trap = path.join(home, 'trap')
    const command = `${browser.command} $(touch ${trap}) ; touch ${trap} %s`
    await using _program = spawnPostern([...login(), '--browser', command], { home, stdin: '' })
    const words = await browser.opened()
    assert.deepEqual(words.slice(0, 2), ['$(touch', `${trap})`])
    assert.ok(!existsSync(trap))
  })

  test('no browser at all: the address is there, and what to do with it', async () => {
    const home = makeTempFolder('home')
    await using program = spawnPostern(login(), { home, stdin: '', browser: '/bin/false' })
    await program.matches(/no browser could be started/)
    assert.match(program.stderr, /https:\/\/edge\.localhost:\d+\/oauth\/\S+/)
    assert.equal(program.stdout, '')
    assert.ok(program.isRunning, 'it goes on waiting for the person')
  })
})
