import { once } from 'node:events'
import type { Program } from '../../demo/program.ts'
import { spawnPostern } from './postern.ts'

const CHUNK = Buffer.alloc(16 * 1024, 7)

/** A client of an echo service that can send and read for ever. */
export interface Pump extends AsyncDisposable {
  client: Program
  /** Sends one byte; resolves when it is back. */
  open(): Promise<void>
  /** From now on as fast as it goes; resolves when bytes come back. */
  start(): Promise<void>
}

export function openPump(home: string, host: string): Pump {
  const client = spawnPostern(['client', 'tls', '--host', host], { home, collectStdout: false })
  const { stdin, stdout } = client.child
  const fill = () => {
    while (stdin.writable && stdin.write(CHUNK)) {}
  }
  const answer = async () => {
    await once(stdout, 'data')
    stdout.resume()
  }
  return {
    client,
    open() {
      stdin.write(CHUNK.subarray(0, 1))
      return answer()
    },
    start() {
      stdin.on('drain', fill)
      fill()
      return answer()
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}
