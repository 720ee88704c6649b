import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createCsr } from '@postern/shared/certs/csr'
import { findFreePort } from '../demo/free-port.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { callApi, type PeerSession, signInByHand } from './support/oauth-peer.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { forgeCertificate } from './support/tls-peer.ts'
import { within } from './support/until.ts'
import {
  startUpstreamProvider,
  type UpstreamAccount,
  type UpstreamProvider,
} from './support/upstream-provider.ts'

/** Who somebody is, is read in one way only. A service admits mycorp.com and one address elsewhere; people come
 *  with everything that looks like that. */

const OWNER = 'operator@mycorp.com'
/** What a terminal would obey. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
const RAW = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/

let provider: UpstreamProvider
let edge: EdgeProcess
let echo: TcpService
let owner: string
let service: ConnectedService

before(async () => {
  const port = await findFreePort()
  provider = await startUpstreamProvider({
    edgeOrigin: `https://edge.localhost:${port}`,
    accounts: { [OWNER]: account('owner', OWNER) },
  })
  edge = await startEdge({ port, identity: provider.identity })
  echo = await startEcho()
  owner = await makePerson(edge, OWNER)
  service = await connectService({
    home: owner,
    port: echo.port,
    allowedEmailDomains: ['MyCorp.com'],
    allowedEmailAddresses: ['Contractor@Gmail.com'],
  })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
  await provider?.[Symbol.asyncDispose]()
})

function account(
  sub: string,
  email: string | undefined,
  more: Partial<UpstreamAccount> = {},
): UpstreamAccount {
  return { sub, email_verified: true, ...(email === undefined ? {} : { email }), ...more }
}

/** Asks for a certificate, as `client tls` does before it opens a flow. */
async function mayEnter(session: PeerSession): Promise<boolean> {
  const csr = createCsr(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const body = { host: service.host, csr }
  const answer = await callApi(edge, session.key, session.accessToken, '/v1/certificates/client', body)
  if (answer.status === 403) assert.equal(answer.json.error.code, 'ACCESS_DENIED')
  else assert.equal(answer.status, 201, answer.text)
  return answer.status === 201
}

describe('addresses', () => {
  const rows: [what: string, outcome: 'enters' | 'denied' | 'not signed in', who: UpstreamAccount][] = [
    ['upper case', 'enters', account('n1', 'Ann@MYCORP.Com')],
    ['a plus-tag at an admitted domain', 'enters', account('n2', 'ann+db@mycorp.com')],
    ['the admitted address in upper case', 'enters', account('n3', 'CONTRACTOR@gmail.com')],
    ['a plus-tag on an admitted address', 'denied', account('n4', 'contractor+x@gmail.com')],
    ['dots in an admitted address', 'denied', account('n5', 'con.tractor@gmail.com')],
    ['a domain that ends alike', 'denied', account('n6', 'ann@evil-mycorp.com')],
    ['a domain that begins alike', 'denied', account('n7', 'ann@mycorp.com.evil')],
    ['a sub-domain', 'denied', account('n8', 'ann@eu.mycorp.com')],
    ['the domain as local part', 'denied', account('n9', 'mycorp.com@evil.com')],
    ['punycode that looks like it', 'denied', account('n10', 'ann@xn--mcorp-jua.com')],
    ['letters that look like it', 'not signed in', account('n11', 'ann@mуcorp.com')],
    ['an umlaut', 'not signed in', account('n12', 'ann@mýcorp.com')],
    ['full-width letters', 'not signed in', account('n13', 'ann@ｍycorp.com')],
    ['a trailing dot', 'not signed in', account('n14', 'ann@mycorp.com.')],
    ['two @', 'not signed in', account('n15', 'ann@evil.com@mycorp.com')],
    ['a quoted local part', 'not signed in', account('n16', '"ann@evil.com"@mycorp.com')],
    ['a comment', 'not signed in', account('n17', 'ann(x)@mycorp.com')],
    ['a NUL', 'not signed in', account('n18', 'ann@mycorp.com\0.evil.com')],
    ['a line feed', 'not signed in', account('n19', 'ann@evil.com\n@mycorp.com')],
    ['escape sequences', 'not signed in', account('n20', '\u001b[2Jann@mycorp.com')],
    ['not verified', 'not signed in', account('n21', 'ann@mycorp.com', { email_verified: false })],
    ['verified is not said', 'not signed in', { sub: 'n22', email: 'ann@mycorp.com' }],
    ['no address', 'not signed in', account('n23', undefined)],
  ]
  for (const [what, outcome, who] of rows) {
    test(`${what}: ${outcome}`, async () => {
      provider.accounts.set(who.sub, who)
      const signingIn = signInByHand(edge, who.sub)
      if (outcome === 'not signed in') return assert.rejects(signingIn, /answered 403[\s\S]*LOGIN_REFUSED/)
      assert.equal(await mayEnter(await signingIn), outcome === 'enters')
    })
  }

  test('refused addresses reach neither the log nor the audit list raw', async () => {
    const list = await runPostern(['audit', 'list', '--limit', '1000'], { home: owner })
    assert.equal(list.code, 0, list.stderr)
    assert.match(list.stdout, /\\u001b\[2Jann@mycorp\.com/)
    assert.doesNotMatch(list.stdout, RAW)
    assert.doesNotMatch(edge.logs(), RAW)
  })

  test('a changed address: from the next login on the old one opens nothing, running flows are decided again', async () => {
    provider.accounts.set('bea', account('b1', 'bea@mycorp.com'))
    const home = makeTempFolder('home')
    await logIn(edge, home, 'bea')
    const flow = spawnPostern(['client', 'tls', '--host', service.host, '--batch'], { home })
    flow.child.stdin.write('hello')
    await flow.output((program) => (program.stdout === 'hello' ? true : undefined))

    provider.accounts.set('bea', account('b1', 'bea@elsewhere.example'))
    const session = await signInByHand(edge, 'bea')
    const { code, stderr } = await within('the flow ends', flow.ended)
    assert.equal(code, 5, stderr)
    assert.match(stderr, /FLOW_REVOKED/)
    assert.equal(await mayEnter(session), false)
    // the session from before is the same person's, who has another address now
    const again = await runPostern(['client', 'tls', '--host', service.host, '--batch'], { home })
    assert.equal(again.code, 5, again.stderr)

    // and whoever gets the old address next is somebody else
    provider.accounts.set('new', account('b2', 'bea@mycorp.com'))
    assert.equal(await mayEnter(await signInByHand(edge, 'new')), true)
    assert.equal(await mayEnter(session), false)
  })
})

describe('labels', () => {
  test('reserved, too long, foreign letters: refused by the edge itself; 63 characters are a label', async () => {
    const session = await signInByHand(edge, OWNER)
    const claim = (label: string) => {
      const allow = { emailDomains: ['mycorp.com'], emailAddresses: [], anyAuthenticated: false }
      const body = { name: `named ${label.length}`, type: 'tls', label, allow }
      return callApi(edge, session.key, session.accessToken, '/v1/services', body)
    }
    const bad = [
      ...['mtls', 'www', 'edge', 'api', 'login', 'localhost', 'wpad', 'MTLS', 'ab', '-abc', 'abc-', 'a.bc'],
      ...[
        'a'.repeat(64),
        'xn--abc',
        'bücher',
        'аbc',
        'abc\0',
        'abc\n',
        'abc.edge.localhost',
        'a_bc',
        '\u001b[2J',
      ],
    ]
    for (const label of bad) {
      const { status, text } = await claim(label)
      assert.ok(status === 400 || status === 422, `${JSON.stringify(label)}: ${status} ${text}`)
      assert.doesNotMatch(text, RAW)
    }
    const long = await claim('a'.repeat(63))
    assert.ok(long.status === 200 || long.status === 201, long.text)
    assert.equal(long.json.service.host, `${'a'.repeat(63)}.${edge.domain}`)
  })
})

describe('names from elsewhere on a terminal', () => {
  const HOSTILE = '\u001b]0;owned\u0007\u001b[2J\u009b31m\u202e'

  test('whatever is typed or linked to comes back printable', async () => {
    const commands = [
      ['client', 'tls', '--host', `${HOSTILE}.edge.localhost`],
      ['service', 'show', HOSTILE],
      ['service', 'update', service.label, '--allowed-email-addresses', `${HOSTILE}@mycorp.com`],
      ['service', 'update', service.label, '--allowed-email-domains', HOSTILE],
      ['login', '--edge', `https://${HOSTILE}`],
      ['login', '--edge', edge.origin, '--ca-file', HOSTILE],
      ['audit', 'list', '--type', HOSTILE],
      [HOSTILE],
      ['whoami', `--${HOSTILE}`],
      ['whoami', HOSTILE],
    ]
    for (const args of commands) {
      const { code, stdout, stderr } = await runPostern(args, { home: owner })
      assert.doesNotMatch(stdout + stderr, RAW, `${JSON.stringify(args)}: ${JSON.stringify(stderr)}`)
      assert.notEqual(code, 0)
    }
  })

  test('an edge’s error, hint and names come out printable', async () => {
    const { key, cert } = forgeCertificate({
      ca: {
        certificate: edge.caFile,
        key: path.join(edge.dataDir, 'ca', 'edge-ca.key'),
      },
      subjectAltName: `DNS:${edge.domain}`,
      usage: 'serverAuth',
    })
    const answers: [status: number, body: object][] = [
      [403, { error: { code: 'ACCESS_DENIED', message: `no ${HOSTILE}`, hint: `do ${HOSTILE}` } }],
      [500, { error: { code: HOSTILE, message: HOSTILE, hint: HOSTILE, details: { [HOSTILE]: HOSTILE } } }],
      [200, { domain: HOSTILE, issuer: HOSTILE, clientId: HOSTILE, version: HOSTILE, now: Date.now() }],
    ]
    for (const [status, body] of answers) {
      const server = createServer({ key, cert }, (_request, response) => {
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const origin = `https://${edge.domain}:${(server.address() as AddressInfo).port}`
      try {
        const args = ['login', '--edge', origin, '--ca-file', edge.caFile]
        const { code, stdout, stderr } = await runPostern(args, { home: makeTempFolder('home') })
        assert.notEqual(code, 0)
        assert.doesNotMatch(stdout + stderr, RAW, JSON.stringify(stderr))
      } finally {
        server.close()
        server.closeAllConnections()
      }
    }
  })
})
