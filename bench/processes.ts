import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { median } from './statistics.ts'

/** What a process has used, by Linux's own books. */

/** Linux counts in hundredths of a second on every machine that Node runs on. */
const TICKS_PER_SECOND = 100
const LOOK_EVERY_MS = 250
const LOOKS = 8
/** As steady as a process without work gets. */
const STEADY = 0.005
const GIVE_UP_MS = 15_000

/** Seconds of all its threads, in user and kernel mode. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  // the name in parentheses may hold anything
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

export function residentKib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1])
}

/** Once it no longer changes: nothing makes the process collect its garbage. */
export async function settledKib(pid: number): Promise<number> {
  const deadline = performance.now() + GIVE_UP_MS
  const seen: number[] = []
  for (;;) {
    seen.push(residentKib(pid))
    const last = seen.slice(-LOOKS)
    const isSteady = last.length === LOOKS && Math.max(...last) - Math.min(...last) < STEADY * median(last)
    if (isSteady || performance.now() > deadline) return median(last)
    await pause(LOOK_EVERY_MS)
  }
}

/** Descriptors that a process may open: Node takes as many as the hard limit allows. */
export function openFilesAllowed(): number {
  const [, limit] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
  return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit)
}

/** CPU seconds of a process while `work` runs. */
export async function cpuOf(pid: number, work: () => Promise<unknown>): Promise<number> {
  const before = cpuSeconds(pid)
  await work()
  return cpuSeconds(pid) - before
}
