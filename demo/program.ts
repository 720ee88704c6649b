import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'

/** Programs that this process started. They get a process group of their own, so that what they started goes
 *  with them, and none outlives this process, however it ends. */

const running = new Set<Program>()

process.on('exit', () => {
  for (const program of running) program.signal('SIGKILL')
})
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (process.listenerCount(signal) === 1) process.exit(1)
  })
}

/** Far more than anything takes on a busy machine: it ends what would never come. */
const GENEROUS_MS = 60_000

export interface ProgramOptions {
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** Given at once and closed. Left out: stdin stays open, write to `child.stdin`. */
  stdin?: string | Uint8Array
  /** false: stdout is not collected, read it from `child.stdout`. */
  collectStdout?: boolean
}

export interface ProgramResult {
  /** Exit code; null when a signal ended it. */
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stdoutBytes: Buffer
  stderr: string
}

/** One started program: its output so far, its end. */
export class Program {
  readonly name: string
  readonly child: ChildProcessWithoutNullStreams
  /** Settles when the program has ended and all its output was read. Never rejects. */
  readonly ended: Promise<ProgramResult>
  readonly #stdout: Buffer[] = []
  readonly #stderr: Buffer[] = []
  readonly #listeners = new Set<() => void>()
  #startError: Error | undefined
  #over = false

  constructor(command: string, args: readonly string[], options: ProgramOptions = {}) {
    this.name = [command, ...args].join(' ')
    this.child = spawn(command, args, {
      stdio: 'pipe',
      detached: true,
      ...(options.env ? { env: options.env } : {}),
      ...(options.cwd ? { cwd: options.cwd } : {}),
    })
    running.add(this)
    if (options.collectStdout !== false) this.#collect(this.child.stdout, this.#stdout)
    this.#collect(this.child.stderr, this.#stderr)
    // a program may end without having read its input
    this.child.stdin.on('error', () => {})
    if (options.stdin !== undefined) this.child.stdin.end(options.stdin)
    this.ended = this.#waitForEnd()
  }

  get pid(): number {
    return this.child.pid!
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null && !this.#startError
  }

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString('utf8')
  }

  get stderr(): string {
    return Buffer.concat(this.#stderr).toString('utf8')
  }

  /** stderr, then stdout: what to show when something went wrong. */
  logs(): string {
    return this.stderr + this.stdout
  }

  /** Waits until `find` finds something in the output so far.
   *  @throws when the program ends or the time is over before */
  async output<T>(find: (program: Program) => T | undefined, timeoutMs = GENEROUS_MS): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    let look: (() => void) | undefined
    try {
      return await new Promise<T>((resolve, reject) => {
        const fail = (why: string) => reject(new Error(`${why}: ${this.name}\n${this.logs()}`))
        look = () => {
          const found = find(this)
          if (found !== undefined) resolve(found)
          else if (this.#over) fail('ended before it said what was waited for')
        }
        timer = setTimeout(() => fail(`nothing of what was waited for in ${timeoutMs} ms`), timeoutMs)
        this.#listeners.add(look)
        look()
      })
    } finally {
      clearTimeout(timer)
      if (look) this.#listeners.delete(look)
    }
  }

  /** Waits for a match of `pattern` in stdout or stderr. */
  async matches(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    return this.output((program) => pattern.exec(program.logs()) ?? undefined, timeoutMs)
  }

  /** Sends a signal to the program and everything it started. */
  signal(signal: NodeJS.Signals): void {
    if (this.child.pid === undefined) return
    try {
      process.kill(-this.child.pid, signal)
    } catch {
      // gone already
    }
  }

  /** Ends the program: `signal` first, SIGKILL when it is still there after `graceMs`. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = 10_000): Promise<ProgramResult> {
    this.signal(signal)
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs)
    const result = await this.ended
    clearTimeout(timer)
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('SIGKILL')
  }

  #collect(stream: NodeJS.ReadableStream, into: Buffer[]): void {
    stream.on('data', (chunk: Buffer) => {
      into.push(chunk)
      this.#tell()
    })
  }

  #waitForEnd(): Promise<ProgramResult> {
    return new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.#startError = error
        this.#stderr.push(Buffer.from(`${error.message}\n`))
      })
      this.child.on('close', (code, signal) => {
        this.#over = true
        running.delete(this)
        this.#tell()
        const stdoutBytes = Buffer.concat(this.#stdout)
        resolve({ code, signal, stdout: stdoutBytes.toString('utf8'), stdoutBytes, stderr: this.stderr })
      })
    })
  }

  #tell(): void {
    for (const look of [...this.#listeners]) look()
  }
}
