import net, { type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { connectService } from '../../test/support/connect-service.ts'
import { startListener } from '../../test/support/listen.ts'
import { openPath } from '../path.ts'
import { residentKib } from '../processes.ts'
import type { Measured, Row } from '../row.ts'
import { connectLocal, listen } from '../service.ts'

const MIB = 1024 * 1024
const CHUNK = Buffer.alloc(256 * 1024, 7)
const SLOW_BYTES_PER_SECOND = 1_000_000
const STEP_MS = 20
const LOOK_EVERY_MS = 250
const MAX_GROWTH_MIB = 16

/** A sender without limit against a reader that becomes slow: what client, edge and connector then hold. */
export const slowReader: Row = {
  id: 'P6',
  title: 'memory under a slow reader',
  needs: ['openssl'],
  async run(scale, say): Promise<Measured> {
    const fullSpeedBytes = (scale.quick ? 16 : 1_024) * MIB
    const seconds = scale.quick ? 2 : 60
    await using path = await openPath()
    const full = Promise.withResolvers<void>()
    const slow = Promise.withResolvers<void>()
    const server = net.createServer(async (socket) => {
      socket.on('error', () => {})
      await readAtFullSpeed(socket, fullSpeedBytes)
      full.resolve()
      slow.resolve(await readSlowly(socket, seconds))
    })
    await using connector = await connectService({
      home: path.home,
      port: await listen(server),
      name: 'slow',
    })
    await using listener = await startListener({ home: path.home, host: connector.host })
    const processes = { client: listener.program.pid, edge: path.edge.pid, connector: connector.pid }

    const sender = await connectLocal(listener.port)
    sender.on('error', () => {})
    push(sender)
    say(`${fullSpeedBytes / MIB} MiB at full speed`)
    await full.promise
    say(`${seconds} s at 1 MB/s`)
    const before = residentOf(processes)
    const peak = await watchPeak(processes, slow.promise)
    sender.destroy()
    server.close()
    const names = Object.keys(processes) as (keyof typeof processes)[]
    return {
      figures: names.flatMap((name) => [
        { name: `${name}, after full speed`, unit: 'MiB', values: [before[name]] },
        { name: `${name}, most afterwards`, unit: 'MiB', values: [peak[name]] },
      ]),
      goals: names.map((name) => ({
        text: `growth of the ${name}`,
        value: Math.max(0, peak[name] - before[name]),
        unit: 'MiB',
        relation: 'at most',
        limit: MAX_GROWTH_MIB,
      })),
    }
  },
}

function push(socket: Socket): void {
  const fill = () => {
    while (socket.writable && socket.write(CHUNK)) {}
  }
  socket.on('drain', fill)
  fill()
}

async function readAtFullSpeed(socket: Socket, bytes: number): Promise<void> {
  let left = bytes
  await new Promise<void>((resolve) => {
    const onData = (chunk: Buffer) => {
      left -= chunk.length
      if (left > 0) return
      socket.off('data', onData)
      socket.pause()
      resolve()
    }
    socket.on('data', onData)
  })
}

async function readSlowly(socket: Socket, seconds: number): Promise<void> {
  const started = performance.now()
  for (let read = 0; performance.now() - started < seconds * 1_000; await pause(STEP_MS)) {
    const allowed = ((performance.now() - started) / 1_000) * SLOW_BYTES_PER_SECOND
    while (read < allowed) {
      const chunk = socket.read() as Buffer | null
      if (!chunk) break
      read += chunk.length
    }
  }
}

function residentOf<Name extends string>(processes: Record<Name, number>): Record<Name, number> {
  const entries = Object.entries<number>(processes).map(([name, pid]) => [name, residentKib(pid) / 1_024])
  return Object.fromEntries(entries)
}

async function watchPeak<Name extends string>(
  processes: Record<Name, number>,
  until: Promise<void>,
): Promise<Record<Name, number>> {
  let isOver = false
  void until.then(() => {
    isOver = true
  })
  const peak = residentOf(processes)
  while (!isOver) {
    await pause(LOOK_EVERY_MS)
    for (const [name, mib] of Object.entries<number>(residentOf(processes)))
      peak[name as Name] = Math.max(peak[name as Name], mib)
  }
  return peak
}
