import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
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
