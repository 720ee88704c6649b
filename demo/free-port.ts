import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'

const LOWEST = 10_000

/** A loopback port nobody listens on now, below those that the kernel gives out by itself: no outgoing connection and
 *  no listener on port 0 takes it before you do, or while what listens on it is started again. */
export async function findFreePort(): Promise<number> {
  const firstOfKernel = readFirstPortOfKernel()
  if (firstOfKernel <= LOWEST) throw new Error(`the kernel gives out all ports from ${firstOfKernel} on`)
  for (;;) {
    const port = randomInt(LOWEST, firstOfKernel)
    if (await isFree(port)) return port
  }
}

function readFirstPortOfKernel(): number {
  return Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10)
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch {
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}
