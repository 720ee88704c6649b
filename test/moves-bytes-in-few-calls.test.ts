import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { after, before, type TestContext, test } from 'node:test'
import type { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { spawnPostern } from './support/postern.ts'
import { startTcpService } from './support/tcp-services.ts'
import { until } from './support/until.ts'

/** What a busy flow costs per MiB, counted instead of timed: calls of the kernel, bytes copied in and out, garbage
 *  collections. Figures of today are beside the bounds; how much one turn of the event loop reads depends on who is faster,
 *  so the bounds leave room for that, and none for a write of each TLS record. */

const MIB = 1024 * 1024
/** Until then a connection is read as a quiet one, and the heap grows to its size. */
const WARM_UP_MIB = 16
const MEASURED_MIB = 256
const RECORDER = new URL('./support/record-collections.ts', import.meta.url)
const recorded = { NODE_OPTIONS: `--import=${RECORDER.href}` }

let edge: EdgeProcess
let home: string

before(async () => {
  edge = await startEdge({ env: { ...process.env, ...recorded } })
  home = await makePerson(edge, 'operator@mycorp.com')
})
after(() => edge?.[Symbol.asyncDispose]())

interface Count {
  reads: number
  writes: number
  bytesRead: number
  bytesWritten: number
  collections: number
}

/** Since the program's start. */
async function count(program: Program): Promise<Count> {
  const io = readFileSync(`/proc/${program.pid}/io`, 'utf8')
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(io)![1])
  return {
    reads: field('syscr'),
    writes: field('syscw'),
    bytesRead: field('rchar'),
    bytesWritten: field('wchar'),
    collections: await countCollections(program),
  }
}

const REPORT = /^collections: (\d+)$/gm

/** Asks the recorder in the program. */
async function countCollections(program: Program): Promise<number> {
  const reports = () => [...program.stderr.matchAll(REPORT)]
  const before = reports().length
  process.kill(program.pid, 'SIGUSR2')
  return until('the program says how often it has collected', () => {
    const all = reports()
    return all.length > before ? Number(all.at(-1)![1]) : undefined
  })
}

/** Per MiB; collections of the whole. */
async function costOf(programs: Record<string, Program>, work: () => Promise<void>) {
  const names = Object.keys(programs)
  const before = await Promise.all(Object.values(programs).map(count))
  await work()
  const now = await Promise.all(Object.values(programs).map(count))
  const perMib = (index: number, key: keyof Count, unit = 1) =>
    (now[index]![key] - before[index]![key]) / MEASURED_MIB / unit
  return names.map((name, index) => ({
    name,
    reads: perMib(index, 'reads'),
    writes: perMib(index, 'writes'),
    copied: Math.max(perMib(index, 'bytesRead', MIB), perMib(index, 'bytesWritten', MIB)),
    collections: now[index]!.collections - before[index]!.collections,
  }))
}

/** One flow at full speed in one direction. */
async function assertCheap(t: TestContext, direction: 'up' | 'down'): Promise<void> {
  await using service = await startTcpService(() => {}, { read: direction === 'up' })
  await using connected = await connectService({ home, port: service.port, env: recorded })
  await using client = spawnPostern(['client', 'tls', '--host', connected.host], {
    home,
    env: recorded,
    collectStdout: false,
  })
  const { stdin, stdout } = client.child
  stdin.write('x') // a flow begins with its client
  const { socket } = await service.connection()
  const [from, to]: [Writable, Readable] = direction === 'up' ? [stdin, socket] : [socket, stdout]
  await move(from, to, WARM_UP_MIB)
  const programs = { client, edge: edge.program, connector: connected.program }
  const costs = await costOf(programs, () => move(from, to, MEASURED_MIB))
  for (const { name, reads, writes, copied, collections } of costs) {
    const figures = `${name}: ${reads.toFixed(1)} reads and ${writes.toFixed(1)} writes per MiB, ${collections} collections`
    t.diagnostic(`${direction}: ${figures}, ${copied.toFixed(3)} bytes copied per byte`)
    assert.ok(reads <= (name === 'edge' ? MAX_READS_OF_EDGE : MAX_READS), figures)
    assert.ok(writes <= MAX_WRITES, figures)
    assert.ok(collections <= MAX_COLLECTIONS, figures)
    assert.ok(copied <= MAX_COPIED, `${name} copied ${copied} bytes per byte`)
  }
}

const CHUNK = Buffer.alloc(MIB / 4, 7)

async function move(from: Writable, to: Readable, mib: number): Promise<void> {
  let missing = mib * MIB
  const arrived = new Promise<void>((resolve) => {
    const onData = (bytes: Buffer) => {
      missing -= bytes.length
      if (missing > 0) return
      to.off('data', onData)
      to.resume()
      resolve()
    }
    to.on('data', onData)
  })
  for (let sent = 0; sent < mib * MIB; sent += CHUNK.length) {
    if (!from.write(CHUNK)) await once(from, 'drain')
  }
  await arrived
}

/** Each byte goes in once and out once; TLS and frames add 0.002 to that. */
const MAX_COPIED = 1.01
/** Node reads TLS 16 KiB at a time from connections that a server accepted, and larger pieces from those that a client
 *  opened: 118 in the edge; 8 to 26 in the others. */
const MAX_READS_OF_EDGE = 150
const MAX_READS = 50
/** 3 to 7; 20 to the pipe behind stdout, which holds 64 KiB. One for each TLS record would be 64. */
const MAX_WRITES = 32
/** 3 to 13 while 256 MiB pass, for connections are read into slabs; 30 and more in edge and client without. */
const MAX_COLLECTIONS = 24

test('a busy flow up to the service', (t) => assertCheap(t, 'up'))

test('a busy flow down from the service', (t) => assertCheap(t, 'down'))
