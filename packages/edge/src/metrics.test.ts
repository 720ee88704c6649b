import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import type { AuditEvent } from './audit/event.ts'
import { EdgeStage } from './edge-stage.ts'
import { createMetrics, type MetricSources } from './metrics.ts'
import { openMetricsListener } from './metrics-listener.ts'

const SOURCES: MetricSources = {
  connectionsOpen: () => 7,
  handshakesPending: () => 3,
  turnedAway: () => new Map([['malformed', 5]]),
  httpConnections: () => new Map([['https', 2]]),
  flowsNotCovered: () => 0,
  storeLost: () => 0,
  flowsLive: () => 4,
  pools: () => [{ size: { idle: 1, inUse: 2 } }, { size: { idle: 3, inUse: 4 } }],
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
        'postern_flows_live 4',
        'postern_connectors_attached 2',
        'postern_data_connections{state="idle"} 4',
        'postern_data_connections{state="in_use"} 6',
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
      { type: 'flow.decided', decision: 'deny' },
      { type: 'flow.refused', code: 'CERTIFICATE_EXPIRED' },
      { type: 'flow.closed', bytesUp: 10, bytesDown: 20 },
      { type: 'flow.closed', bytesUp: 1, bytesDown: 2, code: 'FLOW_CUT' },
      { type: 'connector.refused', code: 'CONNECTOR_REFUSED' },
      { type: 'connector.lost' },
      { type: 'connector.renewed' },
      { type: 'certificate.issued', kind: 'client' },
      { type: 'certificate.refused', code: 'ACCESS_DENIED' },
      { type: 'login.ok' },
      { type: 'login.refused', code: 'LOGIN_REFUSED' },
      { type: 'service.created' },
    ] as AuditEvent[]
    for (const event of events) metrics.countEvent(event)
    const told = await lines(metrics.registry)
    for (const line of [
      'postern_flows_decided_total{result="deny"} 1',
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
      'postern_audit_recorded_total 12',
    ])
      assert.ok(told.includes(line), line)
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
    const { port } = stage.log.lines.find(({ event }) => event === 'metrics.ready')!.fields as {
      port: number
    }
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    assert.match(text, /^postern_connectors_attached 0$/m)
    await stage[Symbol.asyncDispose]()
    await assert.rejects(fetch(`http://127.0.0.1:${port}/metrics`))
  })
})
