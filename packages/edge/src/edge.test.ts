import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import { PosternError } from '@postern/shared/errors'
import { DOMAIN, EdgeStage, startEdgeStage, TestLog } from '../test/edge-stage.ts'
import { startEdge } from './edge.ts'

const run = promisify(execFile)

/** Files of the store that this process has open. */
function openFilesIn(folder: string): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`)
      } catch {
        return ''
      }
    })
    .filter((file) => file.startsWith(folder))
}

describe('an edge', () => {
  it('says which address it cannot listen on, and leaves nothing open', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    const dataDir = mkdtempSync(path.join(tmpdir(), 'postern-edge-'))
    const { config } = new EdgeStage({})
    const mine = {
      ...config,
      dataDir,
      store: `sqlite:${path.join(dataDir, 'edge.sqlite')}`,
      listen: { host: '127.0.0.1', port },
      audit: { ...config.audit, checkpointKeyFile: path.join(dataDir, 'audit', 'checkpoint.key') },
    }
    await assert.rejects(startEdge(mine, { log: new TestLog() }), (error: unknown) => {
      assert.ok(error instanceof PosternError)
      assert.equal(error.code, 'CONFIG_INVALID')
      assert.equal(error.message, `the edge cannot listen on 127.0.0.1:${port} (EADDRINUSE)`)
      return true
    })
    assert.deepEqual(openFilesIn(dataDir), [])
    taken.close()
    rmSync(config.dataDir, { recursive: true })
    rmSync(dataDir, { recursive: true })
  })

  it('knows its origin with and without the port that clients see', async () => {
    await using plain = await startEdgeStage()
    assert.equal(plain.edge.origin, `https://${DOMAIN}:${plain.edge.port}`)
    await using mapped = await startEdgeStage({ config: { publicPort: 443 } })
    assert.equal(mapped.edge.origin, `https://${DOMAIN}`)
  })

  it('starts again on its own data, with its people and services', async () => {
    const first = await startEdgeStage()
    const owner = await first.person('op@mycorp.com')
    const service = await first.service(owner)
    const credential = await first.connectorCertificate(owner, service)
    await first.edge.close()
    const second = new EdgeStage({ config: { dataDir: first.dataDir, store: first.config.store } })
    await second.start()
    await second.attach(credential)
    await second[Symbol.asyncDispose]()
    await first[Symbol.asyncDispose]()
  })

  it('lets its process end by itself when it is closed, whoever is still connected', async () => {
    const script = `
      import net from 'node:net'
      import { once } from 'node:events'
      import { startEdgeStage, DOMAIN } from '${new URL('../test/edge-stage.ts', import.meta.url)}'
      const stage = await startEdgeStage()
      const owner = await stage.person('op@mycorp.com')
      const service = await stage.service(owner)
      const credential = await stage.connectorCertificate(owner, service)
      const client = await stage.clientCertificate(owner, service)
      const silent = net.connect(stage.edge.port, '127.0.0.1')
      await once(silent, 'connect')
      const idle = await stage.dial({ serverName: DOMAIN, alpn: ['http/1.1'] })
      const unnamed = await stage.dial({ serverName: DOMAIN, alpn: ['postern-data/1'], credential })
      const unattached = await stage.openControl(await stage.connectorCertificate(owner, service))
      const { data } = await stage.attach(credential, { warm: 1 })
      const flow = await stage.openFlow(service, client)
      await data[0].control()
      const plain = await stage.dial({ serverName: service.label + '.' + DOMAIN, credential: client })
      const { drained } = await stage.edge.close()
      console.log(JSON.stringify({ drained, refused: await flow.cut().then(({ code }) => code) }))
      await stage[Symbol.asyncDispose]()
      silent.destroy()
    `
    const args = ['--conditions=postern-source', '--input-type=module', '--eval', script]
    const { stdout, stderr } = await run(process.execPath, args, { timeout: 60_000 })
    assert.deepEqual(JSON.parse(stdout), { drained: false, refused: 'EDGE_STOPPING' })
    assert.equal(stderr, '')
  })
})
