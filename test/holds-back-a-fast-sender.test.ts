import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { spawnPostern } from './support/postern.ts'
import { startTcpService } from './support/tcp-services.ts'

const MIB = 1024 * 1024
const FULL_SPEED_BYTES = 1024 * MIB
const SLOW_SECONDS = 60
const MAX_GROWTH_MIB = 16

/** Resident memory of a process in MiB. */
function residentMib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
}

test('a sender without limit against a reader of 1 MB/s: client, edge and connector stay small', async (t) => {
  await using edge = await startEdge()
  // takes the first GiB as it comes, and then 1 MB each second
  const { promise: fullSpeedDone, resolve: endFullSpeed } = Promise.withResolvers<void>()
  const { promise: slowDone, resolve: endSlow } = Promise.withResolvers<number>()
  await using service = await startTcpService(async (connection) => {
    const { socket } = connection
    await new Promise<void>((resolve) => {
      socket.on('data', () => {
        if (connection.bytesRead >= FULL_SPEED_BYTES) resolve()
      })
    })
    socket.pause()
    socket.removeAllListeners('data')
    endFullSpeed()
    let slowBytes = 0
    for (let step = 1; step <= SLOW_SECONDS * 50; step++) {
      while (slowBytes < step * 20_000) {
        const chunk = socket.read() as Buffer | null
        if (!chunk) break
        slowBytes += chunk.length
      }
      await pause(20)
    }
    endSlow(slowBytes)
  })
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using connected = await connectService({ home, port: service.port })
  await using client = spawnPostern(['client', 'tls', '--host', connected.host], { home })
  const chunk = Buffer.alloc(256 * 1024, 7)
  const pump = () => {
    while (client.child.stdin.writable && client.child.stdin.write(chunk)) {}
  }
  client.child.stdin.on('drain', pump)
  pump()

  const pids = { client: client.pid, edge: edge.pid, connector: connected.pid }
  await fullSpeedDone
  const before = Object.entries(pids).map(([name, pid]) => ({ name, pid, mib: residentMib(pid), peak: 0 }))
  let isSlow = true
  void slowDone.then(() => (isSlow = false))
  while (isSlow) {
    for (const one of before) one.peak = Math.max(one.peak, residentMib(one.pid))
    await Promise.race([slowDone, pause(500)])
  }
  const slowBytes = await slowDone
  assert.ok(slowBytes >= SLOW_SECONDS * 900_000, `the reader got ${slowBytes} bytes`)
  for (const { name, mib, peak } of before) {
    t.diagnostic(
      `${name}: ${mib.toFixed(0)} MiB after one full-speed GiB, at most ${peak.toFixed(0)} MiB afterwards`,
    )
    assert.ok(peak - mib <= MAX_GROWTH_MIB, `${name} grew by ${(peak - mib).toFixed(1)} MiB`)
  }
})
