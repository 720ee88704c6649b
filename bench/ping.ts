import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Program } from '../demo/program.ts'
import { connectLocal, openEcho } from './service.ts'

/** Somebody who works while the edge is busy, in a process of its own: one byte there and back, over and over. */

const PAUSE_MS = 5

/** @returns milliseconds of every round trip */
export async function pingFor(port: number, durationMs: number): Promise<number[]> {
  const program = new Program(process.execPath, [
    fileURLToPath(import.meta.url),
    String(port),
    String(durationMs),
  ])
  const { code, stdout, stderr } = await program.ended
  if (code !== 0) throw new Error(`the pings failed\n${stderr}`)
  return JSON.parse(stdout)
}

async function ping(port: number, durationMs: number): Promise<number[]> {
  const socket = await connectLocal(port)
  const once = openEcho(socket, (bytes) => void socket.write(bytes))
  await once()
  const times: number[] = []
  for (const end = performance.now() + durationMs; performance.now() < end; await pause(PAUSE_MS)) {
    const started = performance.now()
    await once()
    times.push(performance.now() - started)
  }
  socket.destroy()
  return times
}

if (import.meta.main) {
  const [port, durationMs] = process.argv.slice(2).map(Number)
  process.stdout.write(JSON.stringify(await ping(port!, durationMs!)))
}
