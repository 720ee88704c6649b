import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parser } from '@prometheus-io/lezer-promql'
import { parse } from 'yaml'
import { type EdgeStage, startEdgeStage } from './edge-stage.ts'

/** docs/grafana-dashboard.json asks for nothing that an edge does not tell, and leaves nothing out unsaid. */

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const DASHBOARD: Dashboard = JSON.parse(readFileSync(path.join(ROOT, 'docs/grafana-dashboard.json'), 'utf8'))
const PANELS = DASHBOARD.panels.filter(({ type }) => type !== 'row')

/** Of these the dashboard shows others that say the same, or they are for somebody who looks for a leak. */
const NOT_SHOWN: ReadonlySet<string> = new Set([
  'postern_server_certificate_expires_timestamp_seconds',
  'postern_server_certificate_next_order_timestamp_seconds',
  'process_cpu_seconds_total',
  'process_start_time_seconds',
  'process_virtual_memory_bytes',
  'process_heap_bytes',
  'nodejs_eventloop_lag_seconds',
  'nodejs_eventloop_lag_min_seconds',
  'nodejs_eventloop_lag_max_seconds',
  'nodejs_eventloop_lag_mean_seconds',
  'nodejs_eventloop_lag_stddev_seconds',
  'nodejs_eventloop_lag_p90_seconds',
  'nodejs_active_resources',
  'nodejs_active_resources_total',
  'nodejs_active_handles',
  'nodejs_active_handles_total',
  'nodejs_active_requests',
  'nodejs_active_requests_total',
  'nodejs_heap_size_total_bytes',
  'nodejs_heap_space_size_total_bytes',
  'nodejs_heap_space_size_used_bytes',
  'nodejs_heap_space_size_available_bytes',
  'nodejs_version_info',
  'nodejs_gc_duration_seconds',
])

interface Dashboard {
  uid: string
  title: string
  schemaVersion: number
  templating: { list: { name: string; type: string; query: unknown }[] }
  panels: Panel[]
}

interface Panel {
  id: number
  type: string
  title: string
  datasource?: { type: string; uid: string }
  gridPos: { h: number; w: number; x: number; y: number }
  fieldConfig: { defaults: { unit: string } }
  targets: Target[]
}

interface Alarm {
  alert: string
  expr: string
  annotations: { summary: string }
}

interface Target {
  expr: string
  legendFormat: string
  datasource: { uid: string }
}

/** One selection of a metric in a query. */
interface Selected {
  name: string
  /** The functions around it, the outermost first. */
  within: string[]
}

interface Query {
  selected: Selected[]
  /** What it is grouped by. */
  labels: string[]
}

/** @throws where Prometheus would not understand it */
function parseQuery(expr: string): Query {
  const text = expr.replaceAll('$__rate_interval', '5m') // as Grafana does
  const query: Query = { selected: [], labels: [] }
  const functions: { name: string; to: number }[] = []
  parser.parse(text).iterate({
    enter({ name, from, to, node, type }) {
      assert.ok(!type.isError, `${expr} is no PromQL at ${from}`)
      while (functions.length > 0 && from >= functions.at(-1)!.to) functions.pop()
      if (name === 'FunctionCall' || name === 'AggregateExpr') {
        functions.push({ name: /^\w+/.exec(text.slice(from, to))![0], to })
      }
      if (name === 'VectorSelector') {
        const identifier = node.getChild('Identifier')!
        const within = functions.map((call) => call.name)
        query.selected.push({ name: text.slice(identifier.from, identifier.to), within })
      }
      if (name === 'LabelName' && node.parent?.name === 'GroupingLabels')
        query.labels.push(text.slice(from, to))
    },
  })
  return query
}

interface Told {
  type: string
  labels: string[]
}

describe('docs/grafana-dashboard.json', () => {
  let stage: EdgeStage
  /** What a Prometheus can select at a real edge: `X_bucket` and `X_count` of a histogram X, too. */
  const told = new Map<string, Told>()
  /** By the name under which docs/metrics.md has it. */
  const names = new Set<string>()

  before(async () => {
    stage = await startEdgeStage({ config: { metrics: { host: '127.0.0.1', port: 0 } } })
    const text = await stage.scrape()
    const page = readFileSync(path.join(ROOT, 'docs/metrics.md'), 'utf8')
    for (const [, name, type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
      const row = page.split('\n').find((line) => line.startsWith(`| \`${name}\` |`))
      assert.ok(row, `docs/metrics.md has no ${name}`)
      const labels = [...row.split('|')[3]!.matchAll(/`(\w+)`/g)].map((match) => match[1]!)
      names.add(name!)
      if (type !== 'histogram') told.set(name!, { type: type!, labels })
      else {
        told.set(`${name}_bucket`, { type: 'counter', labels: [...labels, 'le'] })
        for (const part of ['sum', 'count']) told.set(`${name}_${part}`, { type: 'counter', labels })
      }
    }
  })
  after(() => stage[Symbol.asyncDispose]())

  it('can be imported: a data source to choose, and panels that have their place', () => {
    assert.ok(DASHBOARD.uid && DASHBOARD.title && DASHBOARD.schemaVersion >= 36)
    assert.equal(DASHBOARD.templating.list.find(({ type }) => type === 'datasource')?.name, 'datasource')
    assert.equal(new Set(DASHBOARD.panels.map(({ id }) => id)).size, DASHBOARD.panels.length)
    const taken = new Set<string>()
    for (const { title, gridPos } of DASHBOARD.panels) {
      assert.ok(gridPos.x + gridPos.w <= 24, title)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(!taken.has(`${x} ${y}`), `${title} lies on another panel`)
          taken.add(`${x} ${y}`)
        }
      }
    }
    for (const { title, datasource, targets, fieldConfig } of PANELS) {
      assert.ok(fieldConfig.defaults.unit, `${title} has no unit`)
      assert.ok(targets.length > 0, title)
      for (const { uid } of [datasource!, ...targets.map((target) => target.datasource)])
        assert.match(uid, /^\$\{datasource\}$/, title)
    }
  })

  it('asks in PromQL for what a real edge tells', () => {
    for (const { title, targets } of PANELS) {
      for (const { expr, legendFormat } of targets) {
        const { selected, labels } = parseQuery(expr)
        assert.ok(selected.length > 0, `${title}: ${expr}`)
        for (const { name, within } of selected) {
          const metric = told.get(name)
          assert.ok(metric, `${title}: no edge tells ${name}`)
          for (const label of labels) assert.ok(metric.labels.includes(label), `${name} has no ${label}`)
          const isRate = within.some((call) => call === 'rate' || call === 'increase')
          assert.equal(isRate, metric.type === 'counter', `${title}: ${name} is a ${metric.type}`)
          if (name.endsWith('_bucket')) {
            assert.equal(within[0], 'histogram_quantile', title)
            assert.ok(labels.includes('le'), title)
          }
        }
        for (const [, label] of legendFormat.matchAll(/{{(\w+)}}/g))
          assert.ok(labels.includes(label!), `${title}: ${label} is not in ${expr}`)
      }
    }
  })

  it('shows every metric of docs/metrics.md, or leaves it out on purpose', () => {
    const queries = PANELS.flatMap(({ targets }) => targets.map(({ expr }) => parseQuery(expr)))
    const selected = queries.flatMap((query) => query.selected.map(({ name }) => name))
    const shown = new Set(selected.map((name) => (names.has(name) ? name : name.replace(/_[a-z]+$/, ''))))
    const missing = [...names].filter((name) => !shown.has(name))
    assert.deepEqual(missing.toSorted(), [...NOT_SHOWN].toSorted())
  })

  it('and the alarms of docs/metrics.md ask for what there is', () => {
    const page = readFileSync(path.join(ROOT, 'docs/metrics.md'), 'utf8')
    const [, rules] = /^```yaml\n(groups:[\s\S]*?)^```$/m.exec(page)!
    const { groups } = parse(rules!) as { groups: { name: string; rules: Alarm[] }[] }
    const alarms = groups.flatMap((group) => group.rules)
    assert.ok(alarms.length > 0)
    for (const { alert, expr, annotations } of alarms) {
      const { selected } = parseQuery(expr)
      assert.ok(selected.length > 0 && annotations.summary, alert)
      for (const { name, within } of selected) {
        const metric = told.get(name)
        assert.ok(metric, `${alert}: no edge tells ${name}`)
        assert.equal(within.includes('increase'), metric.type === 'counter', `${alert}: ${name}`)
      }
    }
  })

  it('would notice a query that is none', () => {
    assert.throws(() => parseQuery('sum(rate(postern_flows_live[5m])'), /no PromQL/)
    assert.deepEqual(parseQuery('sum by (code) (rate(a_total{x="y"}[5m])) / max(b)'), {
      selected: [
        { name: 'a_total', within: ['sum', 'rate'] },
        { name: 'b', within: ['max'] },
      ],
      labels: ['code'],
    })
  })
})
