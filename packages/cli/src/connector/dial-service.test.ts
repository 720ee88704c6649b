import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { dialService } from './dial-service.ts'

test('a service on one loopback address only is reached however busy the connector is', async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  let busy = true
  const block = () => {
    const until = performance.now() + 300
    while (performance.now() < until);
    if (busy) setImmediate(block)
  }
  setImmediate(block)
  try {
    for (let attempt = 0; attempt < 3; attempt++) (await dialService({ host: 'localhost', port })).destroy()
  } finally {
    busy = false
    server.close()
  }
})

test('a socket of this machine: gone, stale and there', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-dial-'))
  const target = { path: path.join(folder, 'db.sock') }
  const server = createServer((socket) => socket.end('hello'))
  try {
    await assert.rejects(dialService(target), { code: 'SERVICE_REFUSED' })
    writeFileSync(target.path, '')
    await assert.rejects(dialService(target), { code: 'SERVICE_REFUSED' })
    rmSync(target.path)
    server.listen(target.path)
    await once(server, 'listening')
    const socket = await dialService(target)
    assert.equal(String((await once(socket, 'data'))[0]), 'hello')
    socket.destroy()
  } finally {
    server.close()
    rmSync(folder, { recursive: true })
  }
})
