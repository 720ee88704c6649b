import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Runs the command line from its sources, in a session without a terminal, with a state folder of its own. */

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url))

export interface Finished {
  code: number | null
  stdout: string
  stderr: string
}

/** Killed when disposed of, so that a failing test leaves nothing behind. */
export interface Running extends Disposable {
  child: ChildProcess
  finished: Promise<Finished>
  /** Waits for text on stderr or stdout. */
  sees(text: string): Promise<void>
}

export function createHome(): { folder: string } & Disposable {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-cli-'))
  // a browser that was started may still be writing into it
  return {
    folder,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }),
  }
}

export function startPostern(home: string, args: string[], env: Record<string, string> = {}): Running {
  const child = spawn(process.execPath, ['--conditions=postern-source', MAIN, ...args], {
    // a session of its own: no controlling terminal, whatever the tests run in
    detached: true,
    stdio: 'pipe',
    env: { PATH: process.env.PATH ?? '', POSTERN_HOME: home, ...env },
  })
  const chunks: { stdout: Buffer[]; stderr: Buffer[] } = { stdout: [], stderr: [] }
  const text = (name: 'stdout' | 'stderr') => Buffer.concat(chunks[name]).toString('utf8')
  const waiting = new Set<() => void>()
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].on('data', (chunk: Buffer) => {
      chunks[name].push(chunk)
      for (const check of waiting) check()
    })
  }
  const finished = new Promise<Finished>((resolve) => {
    child.once('close', (code) => resolve({ code, stdout: text('stdout'), stderr: text('stderr') }))
  })
  child.stdin.on('error', () => undefined)
  return {
    child,
    finished,
    [Symbol.dispose]: () => void (child.exitCode === null && child.kill('SIGKILL')),
    sees: (wanted) =>
      new Promise((resolve, reject) => {
        const check = () => {
          if (!text('stdout').includes(wanted) && !text('stderr').includes(wanted)) return
          waiting.delete(check)
          resolve()
        }
        waiting.add(check)
        void finished.then(() => reject(new Error(`ended without "${wanted}": ${text('stderr')}`)))
        check()
      }),
  }
}

/** Runs to the end. @param stdin written and ended; left out: stdin stays open */
export async function runPostern(
  home: string,
  args: string[],
  options: { stdin?: string; env?: Record<string, string> } = {},
): Promise<Finished> {
  using running = startPostern(home, args, options.env)
  const { child, finished } = running
  if (options.stdin !== undefined) child.stdin!.end(options.stdin)
  return await finished
}
