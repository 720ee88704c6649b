import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { test } from 'node:test'
import { createAgent, requestHttps } from './https-request.ts'

test('a CA that cannot be read is a failed request, and its connection is closed', async () => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const accepted = once(server, 'connection')
  const agent = createAgent('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
  const request = requestHttps(agent, new URL(`https://127.0.0.1:${port}`), { method: 'GET' })
  await assert.rejects(request, { code: 'EDGE_UNREACHABLE' })
  const [socket] = await accepted
  socket.resume()
  await once(socket, 'close')
  server.close()
})

test('an address that nobody listens on is a failed request', async () => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const request = requestHttps(createAgent(undefined), new URL(`https://127.0.0.1:${port}`), {
    method: 'GET',
  })
  await assert.rejects(request, { code: 'EDGE_UNREACHABLE', message: /nothing listens there/ })
})
