import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import type { PosternError } from '@postern/shared/errors'
import { dialService, whatWasFound } from './dial-service.ts'

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
    const found = () => dialService(target).then(() => 'a service', tellFailure)
    const refused = 'SERVICE_REFUSED the service refused the connection'
    assert.equal(await found(), `${refused}, unix:${target.path}: there is no such file`)
    writeFileSync(target.path, '')
    assert.equal(await found(), `${refused}, unix:${target.path}: nothing listens there, or it is no socket`)
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

test('the people of the connector hear what was found where, in words; the message names no place', async () => {
  const { port } = await freePort()
  const cases = [
    [{ host: '127.0.0.1', port }, 'SERVICE_REFUSED', `127.0.0.1:${port}: nothing listens there`],
    [{ host: 'localhost', port }, 'SERVICE_REFUSED', `localhost:${port}: nothing listens there`],
    [
      { host: 'nowhere.invalid', port: 1 },
      'SERVICE_UNREACHABLE',
      /^nowhere\.invalid:1: this machine (knows no address of that name|cannot look up names now)$/,
    ],
  ] as const
  for (const [target, code, found] of cases) {
    const error = await dialService(target).then(
      () => assert.fail(),
      (caught: PosternError) => caught,
    )
    assert.equal(error.code, code)
    assert.doesNotMatch(error.message, /localhost|127\.0|invalid/)
    if (typeof found === 'string') assert.equal(whatWasFound(error), found)
    else assert.match(whatWasFound(error)!, found)
  }
})

function tellFailure(error: PosternError): string {
  return `${error.code} ${error.message}, ${whatWasFound(error)}`
}

async function freePort(): Promise<AddressInfo> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return address
}
