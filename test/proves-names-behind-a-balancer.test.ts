import assert from 'node:assert/strict'
import { once } from 'node:events'
import { cpSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import tls from 'node:tls'
import { findFreePort } from '../demo/free-port.ts'
import type { Program } from '../demo/program.ts'
import { newDatabase } from '../packages/edge/test/postgres.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { startHaproxy } from './support/haproxy.ts'
import { startPebble } from './support/pebble.ts'
import { shownCertificate } from './support/shown-certificate.ts'
import { openStoreReader } from './support/store-reader.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** Two edges on one PostgreSQL, and a CA that meets now the one and now the other. */

/** Of each edge: the second has one more, so that the CA counts its certificate for itself. */
const NAMES = [[], ['edge-2.edge.localhost']]
const PROVEN = ['edge.localhost', 'mtls.edge.localhost']

/** Each connection to the next of these ports. */
async function startBalancer(ports: readonly number[]): Promise<{ port: number; program: Program }> {
  const port = await findFreePort()
  const servers = ports.map((to, index) => `  server s${index} 127.0.0.1:${to}`).join('\n')
  const program = await startHaproxy(
    `listen names
  mode tcp
  bind 127.0.0.1:${port}
  balance roundrobin
${servers}
`,
    [port],
  )
  return { port, program }
}

/** Folders of two edges with the same keys, as the operations page has it. */
async function makeFolders(store: string): Promise<[string, string]> {
  const first = await startEdge({ config: { store } })
  await first.stop()
  const second = makeTempFolder('edge')
  mkdirSync(second, { recursive: true })
  for (const keys of ['ca', 'login-keys.json'])
    cpSync(path.join(first.dataDir, keys), path.join(second, keys), { recursive: true })
  return [first.dataDir, second]
}

async function shownOf(edge: EdgeProcess, root: string) {
  return until('a certificate of the CA is shown', () =>
    shownCertificate(edge, 'edge.localhost', root),
  ).catch((cause) => {
    throw new Error(edge.logs(), { cause })
  })
}

/** What a CA's server does, at a time when it is not expected. */
async function knockAsCa({ port }: EdgeProcess): Promise<void> {
  const socket = tls.connect({
    ...{ host: '127.0.0.1', port, servername: 'edge.localhost' },
    ALPNProtocols: ['acme-tls/1'],
  })
  try {
    await once(socket, 'secureConnect')
  } finally {
    socket.destroy()
  }
}

for (const challenge of ['tls-alpn-01', 'http-01'] as const) {
  test(`${challenge}: each gets a certificate with a key of its own, though the CA asks the other one`, async () => {
    const store = await newDatabase()
    const folders = await makeFolders(store)
    const ports = [await findFreePort(), await findFreePort()]
    const httpPorts = [await findFreePort(), await findFreePort()]
    const isHttp = challenge === 'http-01'
    const balancer = await startBalancer(isHttp ? httpPorts : ports)
    await using _ = balancer.program
    await using pebble = await startPebble(isHttp ? { httpPort: balancer.port } : { tlsPort: balancer.port })
    const start = (index: number) => {
      const http = isHttp ? { challenge, http_listen: `127.0.0.1:${httpPorts[index]}` } : {}
      const tls = { acme: { ...pebble.settings, ...http, names: NAMES[index], retry: '1s' } }
      return startEdge({ port: ports[index]!, dataDir: folders[index]!, config: { store, tls } })
    }
    await using first = await start(0)
    await using second = await start(1)
    const root = await pebble.fetchRoot()
    const [one, other] = [await shownOf(first, root), await shownOf(second, root)]
    for (const [index, { subjectaltname }] of [one, other].entries()) {
      const names = [...NAMES[index]!, ...PROVEN].map((name) => `DNS:${name}`)
      assert.deepEqual(subjectaltname?.split(', ').sort(), names)
    }
    assert.notEqual(one.fingerprint256, other.fingerprint256)
    assert.notDeepEqual(one.pubkey, other.pubkey)
    for (const edge of [first, second]) {
      assert.match(edge.logs(), /"event":"acme\.vouches_for_another_edge"/, 'two names, two edges, by turns')
      assert.doesNotMatch(edge.logs(), /acme\.proof_foreign/)
    }
    if (!isHttp) await assert.rejects(knockAsCa(second), 'nothing is shown when nobody orders')
    await using reader = await openStoreReader(first)
    for (const table of ['acme_proofs', 'leases']) {
      await until(`${table} is empty`, async () => (await reader.rows(`select * from ${table}`)).length === 0)
    }
  })
}

test('whoever has only the database does not have the edge vouch for them', async () => {
  const acme = { directory: 'https://ca.localhost:1/dir', accept_terms: true }
  await using edge = await startEdge({ config: { store: await newDatabase(), tls: { acme } } })
  await using store = await openStoreReader(edge, { mayWrite: true })
  const sealed = `token.${'x'.repeat(43)}`
  const expiresAt = Date.now() + 600_000
  await store.rows(`insert into acme_proofs (name, token, sealed, expires_at)
    values ('edge.localhost', 'token', '${sealed}', ${expiresAt})`)
  await assert.rejects(knockAsCa(edge))
  await until('it says so', () => /"event":"acme\.proof_foreign"/.test(edge.logs()))
  assert.doesNotMatch(edge.logs(), /acme\.vouches_for_another_edge/)
})
