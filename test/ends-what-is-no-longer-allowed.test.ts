import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { after, before, test } from 'node:test'
import { createCsr } from '@postern/shared/certs/csr'
import { formatSshPublicKey, toSshPublicKey } from '@postern/shared/certs/ssh-key'
import type { PosternError } from '@postern/shared/errors'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { METRICS_ON, readMetrics } from './support/metrics.ts'
import {
  callApi,
  makeProof,
  obtainCode,
  type PeerSession,
  requestEdge,
  requestTokens,
  signInByHand,
} from './support/oauth-peer.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { openStoreReader, type StoreReader } from './support/store-reader.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { attempt, clientCertificateOf, dial, type KeyAndCertificate } from './support/tls-peer.ts'
import { until } from './support/until.ts'

/** Flows at once, shared by four people. The figures of the product are taken with 1,000 on a machine that does nothing
 *  else, where that takes less than a minute. */
const FLOWS = Number(process.env.POSTERN_LIVE_FLOWS ?? 200)
/** Handshakes at once. */
const AT_ONCE = 25
const BLOCK_BYTES = 1_024
const PAUSE_MS = 1_000
/** Promised is that 99 of 100 flows end within one second; on a machine that many tests share, within five. */
const BOUND_MS = Number(process.env.POSTERN_LIVE_BOUND_MS ?? 5_000)
/** Until the login is too old: the changes before it are made within. */
const MARGIN_MS = 12_000

let edge: EdgeProcess
let echo: TcpService
let store: StoreReader
let operator: string

before(async () => {
  edge = await startEdge({ config: { metrics: METRICS_ON } })
  echo = await startEcho()
  store = await openStoreReader(edge)
  operator = await makePerson(edge, 'operator@mycorp.com')
})
after(async () => {
  await store?.[Symbol.asyncDispose]()
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** @returns what the command printed as JSON */
// biome-ignore lint/suspicious/noExplicitAny: whatever it says
async function postern(...args: string[]): Promise<any> {
  const { code, stdout, stderr } = await runPostern([...args, '--json'], { home: operator })
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout)
}

async function change(as: PeerSession, method: string, target: string, body: object): Promise<void> {
  const dpop = await makeProof(edge, as.key, { method, path: target, token: as.accessToken })
  const headers = { authorization: `DPoP ${as.accessToken}`, dpop }
  const answer = await requestEdge(edge, { method, path: target, headers, body })
  assert.equal(answer.status, 200, answer.text)
}

/** A flow that sends one block after another to an echo, and looks at every byte that comes back. */
class PumpedFlow {
  readonly email: string
  readonly #block: Buffer
  readonly #end: FramedEnd
  readonly #sent = createHash('sha256')
  readonly #received = createHash('sha256')
  readonly #over = Promise.withResolvers<void>()
  #sentBytes = 0
  #receivedBytes = 0
  #timer: NodeJS.Timeout | undefined
  #isFinishing = false
  isCorrupt = false
  code: string | undefined
  flowId: string | undefined

  constructor(email: string, host: string, identity: KeyAndCertificate, number: number) {
    this.email = email
    this.#block = Buffer.from(createHash('sha512').update(String(number)).digest('hex').repeat(8))
    const socket = dial(edge, { serverName: host, alpn: 'postern/1', identity })
    socket.on('error', () => {})
    this.#end = new FramedEnd(socket)
    this.#end.receive({
      chunk: (chunk) => this.#take(chunk),
      end: () => {
        socket.destroy()
        this.#over.resolve()
      },
      drain: () => {},
      cut: (error: PosternError) => {
        this.code = error.code
        clearTimeout(this.#timer)
        this.#over.resolve()
      },
      control: (type, body) => {
        if (type === 'ok') this.flowId = (body as { flowId: string }).flowId
      },
    })
    this.#end.resume()
    this.#send()
  }

  get isPumping(): boolean {
    return this.#receivedBytes > 0 && this.flowId !== undefined
  }

  /** Ends it well, if it is not over yet, and resolves once it is. */
  async finish(): Promise<{ isWhole: boolean }> {
    this.#isFinishing = true
    if (this.code === undefined) {
      clearTimeout(this.#timer)
      this.#end.end(() => {})
    }
    await this.#over.promise
    const isWhole = this.#sent.digest('hex') === this.#received.digest('hex')
    return { isWhole: isWhole && this.#sentBytes === this.#receivedBytes && !this.isCorrupt }
  }

  #send(): void {
    this.#end.write(this.#block)
    this.#sent.update(this.#block)
    this.#sentBytes += BLOCK_BYTES
  }

  #take(chunk: Buffer): void {
    const at = this.#receivedBytes % BLOCK_BYTES
    const twice = Buffer.concat([this.#block, this.#block])
    if (!chunk.equals(twice.subarray(at, at + chunk.length))) this.isCorrupt = true
    this.#received.update(chunk)
    this.#receivedBytes += chunk.length
    if (this.#isFinishing || this.#receivedBytes !== this.#sentBytes) return
    this.#timer = setTimeout(() => this.#send(), PAUSE_MS)
  }
}

interface Closed {
  at: number
  flowId: string
  email: string
  code: string | undefined
  identityId: string
}

async function closedFlows(): Promise<Closed[]> {
  const rows = await store.rows("select at, event from audit_events where type = 'flow.closed'")
  return rows.map((row) => ({ ...JSON.parse(row.event), at: Number(row.at) }))
}

/** How long after the change 99 of 100 of its flows were closed, by the edge's own clock. */
function assertWithinBound(what: string, flows: readonly Closed[], changedAt: number): void {
  const delays = flows.map(({ at }) => at - changedAt).sort((a, b) => a - b)
  const p99 = delays[Math.ceil(delays.length * 0.99) - 1]!
  console.log(`${what}: ${flows.length} flows, p50 ${delays[delays.length >> 1]} ms, p99 ${p99} ms`)
  assert.ok(p99 <= BOUND_MS, `${what}: ${p99} ms`)
  assert.ok(delays[0]! >= 0, `${what}: ended ${delays[0]} ms too soon`)
}

test(`of ${FLOWS} flows those end that a revocation, a list and the clock take away, and no other byte is lost`, async () => {
  const emails = { revoked: 'revoked@mycorp.com', listed: 'listed@other.org', aged: 'aged@mycorp.com' }
  const people: Record<string, string> = { ...emails, stays: 'stays@mycorp.com' }
  await using service = await connectService({
    home: operator,
    port: echo.port,
    allowedEmailDomains: ['mycorp.com', 'other.org'],
  })
  const homes = new Map<string, string>()
  for (const email of Object.values(people)) {
    const home = await makePerson(edge, email)
    homes.set(email, home)
    const first = await runPostern(['client', 'tls', '--host', service.host], { home, stdin: 'x' })
    assert.equal(first.code, 0, first.stderr)
  }
  const flows: PumpedFlow[] = []
  const credentials = Object.values(people).map((email) => ({
    email,
    identity: clientCertificateOf(homes.get(email)!, service.label),
  }))
  while (flows.length < FLOWS) {
    const some = Array.from({ length: Math.min(AT_ONCE, FLOWS - flows.length) }, (_, n) => {
      const { email, identity } = credentials[(flows.length + n) % credentials.length]!
      return new PumpedFlow(email, service.host, identity, flows.length + n)
    })
    flows.push(...some)
    await until('all of them carry bytes', () => some.every((flow) => flow.isPumping))
  }
  // one more through the program itself: what its person sees
  await using program = spawnPostern(['client', 'tls', '--host', service.host], {
    home: homes.get(emails.revoked)!,
  })
  program.child.stdin.write('ping')
  await program.matches(/ping/)
  const count = (email: string) => flows.filter((flow) => flow.email === email).length
  const metrics = await readMetrics(edge)
  assert.equal(metrics.get('postern_flows_live'), FLOWS + 1)
  assert.equal(metrics.get('postern_flows_not_covered'), 0)

  const receipt = await postern('revoke', '--identity', emails.revoked)
  assert.equal(receipt.flows, count(emails.revoked) + 1)
  assert.deepEqual([receipt.sessions, receipt.connectors], [1, 0])
  const ended = await program.ended
  assert.equal(ended.code, 5)
  assert.match(ended.stderr, /your sessions were revoked \(FLOW_REVOKED\)/)

  // hours end at whole minutes and are tried with a clock of their own; a login that gets too old is the same timer
  const admin = await signInByHand(edge, 'operator@mycorp.com')
  const [login] = await store.rows(
    `select sessions.created_at from sessions join identities on identities.id = identity_id where email = '${emails.aged}'`,
  )
  const createdAt = Number(login.created_at)
  const maxLoginAgeMs = Date.now() - createdAt + MARGIN_MS
  const rule = { emailAddresses: [emails.aged], when: { maxLoginAgeMs } }
  await change(admin, 'PUT', `/v1/services/${service.label}/policy`, {
    policy: { allow: [rule] },
    revision: 0,
  })
  const nobody = { emailDomains: [], emailAddresses: [], anyAuthenticated: false }
  await change(admin, 'PATCH', `/v1/services/${service.label}`, {
    allow: { ...nobody, emailAddresses: [people.stays] },
  })
  const [{ updated_at: listedAt }] = await store.rows(
    `select updated_at from services where label = '${service.label}'`,
  )
  assert.ok(Date.now() < createdAt + maxLoginAgeMs, 'the machine is too slow for this test')
  const expected = FLOWS - count(people.stays!)
  await until(
    'all of them have ended',
    () => flows.filter(({ code }) => code !== undefined).length >= expected,
  )

  const finished = await Promise.all(
    flows.map(async (flow) => ({ flow, isWhole: (await flow.finish()).isWhole })),
  )
  const codes: Record<string, string | undefined> = {
    [emails.revoked]: 'FLOW_REVOKED',
    [emails.listed]: 'FLOW_REVOKED',
    [emails.aged]: 'LOGIN_TOO_OLD',
  }
  for (const { flow, isWhole } of finished) {
    assert.equal(flow.code, codes[flow.email], flow.email)
    assert.equal(flow.isCorrupt, false)
    if (flow.email === people.stays) assert.ok(isWhole, 'a flow that stays has lost bytes')
  }

  const closed = await until('every end is recorded', async () => {
    const found = await closedFlows()
    return flows.every(({ flowId }) => found.some((event) => event.flowId === flowId)) && found
  })
  for (const { flowId, code, email } of flows) {
    const events = closed.filter((event) => event.flowId === flowId)
    assert.deepEqual(
      events.map((event) => [event.email, event.code]),
      [[email, code]],
    )
  }
  const cut = (email: string) => closed.filter((event) => event.email === email && event.code !== undefined)
  assertWithinBound('revoked', cut(emails.revoked), Math.min(...(Object.values(receipt.at) as number[])))
  assert.equal(cut(emails.revoked).length, receipt.flows)
  assertWithinBound('login too old', cut(emails.aged), createdAt + maxLoginAgeMs)
  assertWithinBound('off the list', cut(emails.listed), Number(listedAt))
  const after = await readMetrics(edge)
  assert.equal(after.get('postern_flows_not_covered'), 0)
  assert.ok(after.get('postern_revocation_seconds_count')! >= expected)
  const bucket = `postern_revocation_seconds_bucket{le="${BOUND_MS <= 1_000 ? 1 : 10}"}`
  assert.ok(after.get(bucket)! >= expected * 0.99)
})

test('a revoked session: refresh, new certificates, the old ones and the live flow are refused, each with its code', async () => {
  await using service: ConnectedService = await connectService({
    home: operator,
    port: echo.port,
    name: 'session',
  })
  const session = await signInByHand(edge, 'leaver@mycorp.com')
  const call = (target: string, body?: object) =>
    callApi(edge, session.key, session.accessToken, target, body)
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const wanted = { host: service.host, csr: createCsr(privateKey) }
  const issued = await call('/v1/certificates/client', wanted)
  assert.equal(issued.status, 201, issued.text)
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const identity = { key, cert: issued.json.certificate }
  const publicKey = formatSshPublicKey(toSshPublicKey(generateKeyPairSync('ed25519').publicKey))
  const ssh = await call('/v1/certificates/ssh', { host: service.host, publicKey })
  assert.equal(ssh.status, 201, ssh.text)
  const flow = new PumpedFlow('leaver@mycorp.com', service.host, identity, 0)
  await until('the flow carries bytes', () => flow.isPumping)

  const { sessions } = await postern('session', 'list', '--identity', 'leaver@mycorp.com')
  assert.deepEqual([sessions.length, sessions[0].flows], [1, 1])
  const { flows } = await postern('flow', 'list')
  assert.deepEqual(
    flows.map((found: { id: string; sessionId: string }) => [found.id, found.sessionId]),
    [[flow.flowId, sessions[0].id]],
  )
  const receipt = await postern('session', 'revoke', sessions[0].id)
  const { at, krlVersion, ...counts } = receipt
  assert.deepEqual(counts, { sessions: 1, tlsCertificates: 1, sshCertificates: 1, connectors: 0, flows: 1 })
  assert.equal(Object.keys(at).length, 4)

  await until('the flow has ended', () => flow.code)
  assert.equal(flow.code, 'FLOW_REVOKED')
  const old = await attempt(edge, { serverName: service.host, alpn: 'postern/1', identity })
  assert.deepEqual([old.bytes, old.code], ['', 'CERTIFICATE_REVOKED'])
  for (const [target, body] of [
    ['/v1/certificates/client', wanted],
    ['/v1/certificates/ssh', { host: service.host, publicKey }],
  ] as const) {
    assert.equal((await call(target, body)).json.error.code, 'SIGN_IN_REQUIRED')
  }
  const refreshed = await requestTokens(edge, session.key, {
    grant_type: 'refresh_token',
    refresh_token: session.refreshToken,
  })
  assert.deepEqual([refreshed.status, refreshed.json.error], [400, 'invalid_grant'])
  const [row] = await store.rows(
    `select revoked_at from ssh_certificates where session_id = '${sessions[0].id}'`,
  )
  assert.equal(Number(row.revoked_at) > 0, true)
  assert.ok(krlVersion > 0)
})

test('a lock is heard with its own code at refresh, API and sign-in, and unlock ends it', async () => {
  const session = await signInByHand(edge, 'locked@mycorp.com')
  const refresh = () =>
    requestTokens(edge, session.key, { grant_type: 'refresh_token', refresh_token: session.refreshToken })
  const ask = () => callApi(edge, session.key, session.accessToken, '/v1/session')
  await postern('lock', 'locked@mycorp.com', '--until', '8h', '--reason', 'laptop is missing')
  assert.equal((await ask()).json.error.code, 'IDENTITY_LOCKED')
  const refused = await refresh()
  assert.match(
    refused.json.error_description,
    /^IDENTITY_LOCKED: locked@mycorp\.com is locked at this edge until /,
  )
  await assert.rejects(obtainCode(edge, session.key, 'locked@mycorp.com'), /answered 403.*IDENTITY_LOCKED/s)
  const [{ event }] = await store.rows("select event from audit_events where type = 'login.refused'")
  assert.equal(JSON.parse(event).code, 'IDENTITY_LOCKED')
  await postern('unlock', 'locked@mycorp.com')
  assert.equal((await ask()).status, 200)
  assert.equal((await refresh()).status, 200)
})
