import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { spawnPostern } from './support/postern.ts'
import { startEcho, startTcpService, type TcpService } from './support/tcp-services.ts'
import { until, within } from './support/until.ts'

interface Transfer {
  edge: EdgeProcess
  connected: ConnectedService
  service: TcpService
  client: Program
}

/** `T` is stopped. @see proc_pid_stat(5) */
function stateOf(pid: number): string | undefined {
  return /\) (\S) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
}

/** Bytes that have arrived at the local socket of these loopback ports, and that nobody has read. @see proc_net(5) */
function unreadBytes(localPort: number, remotePort: number): number {
  const hex = (port: number) => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const line = new RegExp(`${hex(localPort)} ${hex(remotePort)} \\w+ \\w+:(\\w+)`)
  return Number.parseInt(line.exec(readFileSync('/proc/net/tcp', 'utf8'))?.[1] ?? '0', 16)
}

/** A flow that echoes for ever, in the middle of its transfer; `act` breaks it. */
async function breakTransfer(act: (transfer: Transfer) => Promise<unknown>) {
  await using edge = await startEdge()
  await using service = await startEcho()
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using connected = await connectService({ home, port: service.port })
  await using client = spawnPostern(['client', 'tls', '--host', connected.host], {
    home,
    collectStdout: false,
  })
  const chunk = Buffer.alloc(64 * 1024, 7)
  const pump = () => {
    while (client.child.stdin.writable && client.child.stdin.write(chunk)) {}
  }
  client.child.stdin.on('drain', pump)
  pump()
  let received = 0
  await new Promise<void>((resolve) => {
    client.child.stdout.on('data', (bytes: Buffer) => {
      received += bytes.length
      if (received > 8 * 1024 * 1024) resolve()
    })
  })
  await act({ edge, connected, service, client })
  const seen = await service.connection()
  const ending = await within('the service sees an end', seen.ended)
  return { ended: await within('the client ends', client.ended), ending }
}

test('kill -9 of the edge in mid-transfer: the client exits 6, the service sees a reset', async () => {
  const { ended, ending } = await breakTransfer(({ edge }) => edge.kill9())
  assert.equal(ended.code, 6)
  assert.match(ended.stderr, /FLOW_CUT/)
  assert.equal(ending, 'reset')
})

test('kill -9 of the connector in mid-transfer: the client exits 6, the service sees a reset', async () => {
  const { ended, ending } = await breakTransfer(async ({ connected, service }) => {
    // its kernel sends a reset where bytes of the service are unread; where none are, it can only close
    connected.program.signal('SIGSTOP')
    await until('the connector stands still', () => stateOf(connected.pid) === 'T')
    const { socket } = await service.connection()
    const [from, to] = [socket.remotePort, socket.localPort].map(Number) as [number, number]
    socket.write('unread')
    await until('bytes of the service wait in the connector', () => unreadBytes(from, to) > 0)
    await connected.kill9()
  })
  assert.equal(ended.code, 6)
  assert.match(ended.stderr, /FLOW_CUT/)
  assert.equal(ending, 'reset')
})

test('kill -9 of the client in mid-transfer: the service sees a reset, not an end of file', async () => {
  const { ended, ending } = await breakTransfer(async ({ client }) => client.signal('SIGKILL'))
  assert.equal(ended.signal, 'SIGKILL')
  assert.equal(ending, 'reset')
})

test('a service that resets in mid-transfer: the client exits 6', async () => {
  const { ended } = await breakTransfer(async ({ service }) =>
    (await service.connection()).socket.resetAndDestroy(),
  )
  assert.equal(ended.code, 6)
  assert.match(ended.stderr, /FLOW_CUT/)
})

test('the reader of stdout leaves: the client ends quietly and the service sees a reset', async () => {
  const { ended, ending } = await breakTransfer(async ({ client }) => client.child.stdout.destroy())
  assert.equal(ended.stderr, '')
  assert.equal(ending, 'reset')
})

test('a service that answers and then resets: what it sent is not taken for all', async () => {
  await using edge = await startEdge()
  await using service = await startTcpService(({ socket }) => {
    socket.write('half of it', () => socket.resetAndDestroy())
  })
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using connected = await connectService({ home, port: service.port })
  const client = spawnPostern(['client', 'tls', '--host', connected.host], { home })
  assert.equal((await within('the client ends', client.ended)).code, 6)
})
