import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { ERRORS } from '@postern/shared/errors'
import { ALPN_FLOW } from '@postern/shared/protocol/frames'
import { sql } from 'kysely'
import { EdgeStage, MYCORP, NOBODY, newCsr, startEdgeStage } from '../test/edge-stage.ts'
import type { AuditEvent } from './audit/event.ts'
import { createMetrics, type MetricSources } from './metrics.ts'
import { openMetricsListener } from './metrics-listener.ts'
import type { ObservedQuery } from './store/observe.ts'
import { openStore } from './store/open.ts'

const SOURCES: MetricSources = {
  connectionsOpen: () => 7,
  handshakesPending: () => 3,
  turnedAway: () => new Map([['malformed', 5]]),
  httpConnections: () => new Map([['https', 2]]),
  transportConnections: () => 6,
  flowsNotCovered: () => 0,
  storeLost: () => 0,
  changesNotHeard: () => 0,
  otherEdges: () => 0,
  edgesWithOtherKeys: () => 0,
  flowsLive: () => 4,
  pools: () => [
    { size: { idle: 1, inUse: 2 }, waiting: 0 },
    { size: { idle: 3, inUse: 4 }, waiting: 5 },
  ],
  serverCertificate: () => ({
    notAfter: 1_800_000_000_500,
    isAwaited: true,
    nextAttemptAt: 1_790_000_000_000,
  }),
  now: () => 1_800_000_000_500 - 30 * 86_400_000,
  controlConnections: () => 2,
  auditWaiting: () => 9,
  auditSinkLags: () => [3, 0],
}
const lines = async (registry: { metrics(): Promise<string> }) => (await registry.metrics()).split('\n')

interface Described {
  name: string
  help: string
  labelNames: string[]
}

it('docs/metrics.md explains every metric and no other', () => {
  const { registry } = createMetrics(SOURCES)
  const registered = (registry.getMetricsAsArray() as unknown as Described[]).map((metric) =>
    [
      `\`${metric.name}\``,
      metric.constructor.name.toLowerCase(),
      metric.labelNames.map((label) => `\`${label}\``).join(', '),
      metric.help.replace(/\.$/, ''),
    ].join(' | '),
  )
  const text = readFileSync(new URL('../../../docs/metrics.md', import.meta.url), 'utf8')
  const documented = text.split('\n').filter((line) => line.startsWith('| `'))
  assert.deepEqual(documented.map((line) => line.slice(2, -2)).toSorted(), registered.toSorted())
})

describe('the metrics', () => {
  it('ask for what is now', async () => {
    const { registry } = createMetrics(SOURCES)
    for (let scrape = 0; scrape < 2; scrape++) {
      const now = await lines(registry)
      for (const line of [
        'postern_connections_open 7',
        'postern_handshakes_pending 3',
        'postern_connections_turned_away_total{reason="malformed"} 5',
        'postern_http_connections{room="https"} 2',
        'postern_transport_connections 6',
        'postern_flows_live 4',
        'postern_connectors_attached 2',
        'postern_data_connections{state="idle"} 4',
        'postern_data_connections{state="in_use"} 6',
        'postern_flows_waiting 5',
        'postern_server_certificate_expires_timestamp_seconds 1800000000.5',
        'postern_server_certificate_days_left 30',
        'postern_server_certificate_awaited 1',
        'postern_server_certificate_next_order_timestamp_seconds 1790000000',
        'postern_audit_waiting 9',
      ])
        assert.ok(now.includes(line), line)
    }
  })

  it('count handshakes in classes, whatever a stranger makes OpenSSL say', async () => {
    const metrics = createMetrics(SOURCES)
    const codes = {
      CERT_HAS_EXPIRED: 'not_valid_now',
      UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'untrusted',
      ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: 'no_certificate',
      ECONNRESET: 'left',
      ERR_TLS_HANDSHAKE_TIMEOUT: 'late',
      ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM: 'protocol',
      'made up by a stranger': 'other',
    }
    for (const code of Object.keys(codes)) metrics.countHandshakeRefused({ room: 'flow', code })
    const told = await lines(metrics.registry)
    for (const reason of Object.values(codes))
      assert.ok(told.includes(`postern_handshakes_refused_total{room="flow",reason="${reason}"} 1`), reason)
  })

  it('count what the audit log records', async () => {
    const metrics = createMetrics(SOURCES)
    const events = [
      { type: 'flow.decided', decision: 'deny', ruleKind: 'none' },
      { type: 'flow.refused', code: 'CERTIFICATE_EXPIRED' },
      { type: 'flow.closed', bytesUp: 10, bytesDown: 20 },
      { type: 'flow.closed', bytesUp: 1, bytesDown: 2, code: 'FLOW_CUT' },
      { type: 'connector.refused', code: 'CONNECTOR_REFUSED' },
      { type: 'connector.attached' },
      { type: 'connector.lost' },
      { type: 'connector.renewed' },
      { type: 'certificate.issued', kind: 'client' },
      { type: 'certificate.refused', code: 'ACCESS_DENIED' },
      { type: 'login.ok' },
      { type: 'login.refused', code: 'LOGIN_REFUSED', subject: 'eve' },
      { type: 'service.created' },
    ] as AuditEvent[]
    for (const event of events) metrics.countEvent(event, 4)
    const told = await lines(metrics.registry)
    for (const line of [
      'postern_flows_decided_total{result="deny",rule="none"} 1',
      'postern_flows_refused_total{code="CERTIFICATE_EXPIRED"} 1',
      'postern_flows_closed_total{code="ok"} 1',
      'postern_flows_closed_total{code="FLOW_CUT"} 1',
      'postern_flow_bytes_total{direction="up"} 11',
      'postern_flow_bytes_total{direction="down"} 22',
      'postern_connectors_refused_total{code="CONNECTOR_REFUSED"} 1',
      'postern_connectors_lost_total{code="ok"} 1',
      'postern_certificates_issued_total{kind="connector_renewal"} 1',
      'postern_certificates_issued_total{kind="client"} 1',
      'postern_certificates_refused_total{code="ACCESS_DENIED"} 1',
      'postern_logins_total{result="ok"} 1',
      'postern_logins_total{result="LOGIN_REFUSED"} 1',
      'postern_connectors_attached_total 1',
      'postern_audit_recorded_total 13',
      'postern_audit_record_seconds_count 11', // two are strangers': those do not wait for the disk
    ])
      assert.ok(told.includes(line), line)
  })
})

describe('the metrics of a real edge', () => {
  let stage: EdgeStage
  before(async () => {
    stage = await startEdgeStage({
      config: { metrics: { host: '127.0.0.1', port: 0 } },
      limits: { routeTimeoutMs: 60_000 },
    })
  })
  after(() => stage[Symbol.asyncDispose]())

  /** Now, of all series whose whole name begins so. */
  const sumOf = async (name: string) => {
    const samples = (await stage.scrape()).split('\n').filter((line) => line.startsWith(name))
    return samples.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  }
  /** Asks until it is so: a record is counted when it is on disk, and whoever waited for it hears at the same time. */
  const becomes = async (name: string, value: number) => {
    const deadline = performance.now() + 30_000
    for (;;) {
      const now = await sumOf(name)
      if (now === value) return
      assert.ok(performance.now() < deadline, `${name} is ${now} instead of ${value}`)
    }
  }
  const cast = async (allow = MYCORP) => {
    const [owner, person] = [await stage.person('op@mycorp.com'), await stage.person('dev@mycorp.com')]
    const service = await stage.service(owner, allow)
    const credential = await stage.clientCertificate(person, service)
    const connector = () => stage.connectorCertificate(owner, service)
    return { owner, person, service, credential, connector }
  }

  it('move with a flow: handshake, decision, setup, data connection, bytes, end', async () => {
    const { service, credential, connector } = await cast()
    const { data } = await stage.attach(await connector(), { warm: 1 })
    await becomes('postern_connectors_attached_total', 1)
    await becomes('postern_data_connections{state="idle"}', 1)
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('hello'))
    await data[0]!.text('hello')
    assert.equal(await sumOf('postern_handshake_seconds_count{room="flow"}'), 1)
    assert.equal(await sumOf('postern_flows_decided_total{result="allow",rule="email_domain"}'), 1)
    assert.equal(await sumOf('postern_flow_setup_seconds_count'), 1)
    assert.equal(await sumOf('postern_flows_live'), 1)
    assert.equal(await sumOf('postern_flows_not_covered'), 0)
    assert.equal(await sumOf('postern_data_connections{state="in_use"}'), 1)
    assert.ok((await sumOf('postern_audit_record_seconds_count')) > 0)
    client.end.end(() => {})
    await data[0]!.ended()
    data[0]!.end.end(() => {})
    await becomes('postern_flows_closed_total{code="ok"}', 1)
    assert.equal(await sumOf('postern_flow_bytes_total{direction="up"}'), 5)
    assert.equal(await sumOf('postern_flows_live'), 0)
  })

  it('move with a denial, and with a handshake that is refused', async () => {
    const { service, credential } = await cast(NOBODY)
    const client = await stage.openFlow(service, credential)
    await client.cut()
    await becomes('postern_flows_decided_total{result="deny",rule="none"}', 1)
    await stage.dial({ serverName: `${service.label}.edge.localhost`, alpn: [ALPN_FLOW] })
    await becomes('postern_handshakes_refused_total{room="flow",reason="no_certificate"}', 1)
  })

  it('tell a flow that waits for a data connection, and what a revocation ends', async () => {
    const { owner, service, credential, connector } = await cast()
    const { data, openData } = await stage.attach(await connector())
    const client = await stage.openFlow(service, credential)
    client.end.write(Buffer.from('hello'))
    await becomes('postern_flows_waiting', 1)
    data.push(await openData())
    await data[0]!.text('hello')
    await becomes('postern_flows_waiting', 0)
    const before = await sumOf('postern_revocation_seconds_count')
    const body = { service: service.label }
    const { status, text } = await stage.api('POST', '/v1/revocations', { as: owner, body })
    assert.equal(status, 200, text)
    await client.cut()
    await becomes('postern_revocation_seconds_count', before + 1)
    await becomes('postern_connectors_lost_total', 1)
  })

  it('tell certificates, the store, the event loop, and when the server certificate ends', async () => {
    const { person, service } = await cast()
    const body = { host: service.label, csr: newCsr() }
    const { status, text } = await stage.api('POST', '/v1/certificates/client', { as: person, body })
    assert.equal(status, 201, text)
    await becomes('postern_certificates_issued_total{kind="client"}', 1)
    for (const operation of ['select', 'insert', 'commit'])
      assert.ok((await sumOf(`postern_store_seconds_count{operation="${operation}"}`)) > 0, operation)
    assert.equal(await sumOf('postern_store_failed_total'), 0)
    const expires = await sumOf('postern_server_certificate_expires_timestamp_seconds')
    const { valid_to } = (await stage.dial({ serverName: 'edge.localhost' })).getPeerCertificate()
    assert.equal(expires, Date.parse(valid_to) / 1_000)
    assert.ok((await sumOf('nodejs_eventloop_lag_p99_seconds')) > 0)
  })

  it('count statements that fail', async () => {
    const observed: ObservedQuery[] = []
    await using store = await openStore(':memory:', Date.now, (query) => observed.push(query))
    await assert.rejects(sql`insert into nowhere values (1)`.execute(store.db))
    assert.deepEqual(observed.at(-1), { operation: 'insert', ms: observed.at(-1)!.ms, hasFailed: true })
    const metrics = createMetrics(SOURCES)
    metrics.observeQuery(observed.at(-1)!)
    const told = await lines(metrics.registry)
    assert.ok(told.includes('postern_store_failed_total{operation="insert"} 1'))
  })

  it('have only labels that docs/metrics.md lists, whatever has happened', async () => {
    const page = readFileSync(new URL('../../../docs/metrics.md', import.meta.url), 'utf8')
    const listed = new Set([...page.matchAll(/`([a-z_-]+)`/g)].map((match) => match[1]))
    const samples = (await stage.scrape()).split('\n').filter((line) => line.startsWith('postern_'))
    const values = samples.flatMap((line) => [...line.matchAll(/(\w+)="([^"]*)"/g)])
    assert.ok(values.length > 50)
    for (const [pair, name, value] of values) {
      if (name === 'le' || name === 'sink') assert.match(value!, /^([0-9.]+|\+Inf)$/)
      else assert.ok(listed.has(value) || value! in ERRORS, pair)
    }
  })
})

describe('the metrics listener', () => {
  it('answers GET /metrics and nothing else', async () => {
    const { registry } = createMetrics(SOURCES)
    await using listener = await openMetricsListener({ host: '127.0.0.1', port: 0 }, registry)
    const origin = `http://127.0.0.1:${listener.port}`
    const answer = await fetch(`${origin}/metrics`)
    assert.equal(answer.status, 200)
    assert.match(answer.headers.get('content-type')!, /^text\/plain/)
    assert.match(await answer.text(), /^postern_flows_live 4$/m)
    assert.equal((await fetch(`${origin}/`)).status, 404)
    assert.equal((await fetch(`${origin}/metrics`, { method: 'POST' })).status, 404)
    const port = { host: '127.0.0.1', port: listener.port }
    await assert.rejects(openMetricsListener(port, registry), { code: 'CONFIG_INVALID' })
  })

  it('is there when the configuration asks for it, and gone with the edge', async () => {
    const stage = await new EdgeStage({ config: { metrics: { host: '127.0.0.1', port: 0 } } }).start()
    const { port } = await stage.log.until('metrics.ready')
    assert.match(await stage.scrape(), /^postern_connectors_attached 0$/m)
    await stage[Symbol.asyncDispose]()
    await assert.rejects(fetch(`http://127.0.0.1:${port}/metrics`))
  })
})
