import { tell } from '../io.ts'
import { findProgram, lastLines, runProgram } from '../sshd/run-program.ts'

/** What a service manager of the sd_notify(3) kind is told: systemd, or whoever started us as it does. Node opens no
 *  datagram socket of Unix, and the libraries for it are native code that is built at its installation; systemd's own
 *  small program does it, and waits until the message was taken. */

export interface ServiceManager {
  /** Others may start now. @param status what `systemctl status` shows */
  ready(status: string): void
  reloading(): void
  /** Settles when it has been told, which is once, however often this is called. The process must not end before. */
  stopping(): Promise<void>
}

const PROGRAM = 'systemd-notify'
const TIMEOUT_MS = 5_000

/** @param env the address in it is taken out: programs that we start have nothing to say
 *  @returns what does nothing when nobody wants to know */
export function findServiceManager(env: NodeJS.ProcessEnv = process.env): ServiceManager {
  const { NOTIFY_SOCKET: address } = env
  delete env.NOTIFY_SOCKET
  if (!address) return { ready() {}, reloading() {}, async stopping() {} }
  let sending = Promise.resolve()
  let stopping: Promise<void> | undefined
  const send = (...words: string[]) => {
    sending = sending.then(() => notify(address, words))
    return sending
  }
  return {
    ready: (status) => void send('READY=1', `STATUS=${status}`),
    reloading: () => {
      const microseconds = process.hrtime.bigint() / 1_000n
      void send('RELOADING=1', `MONOTONIC_USEC=${microseconds}`)
    },
    stopping() {
      stopping ??= send('STOPPING=1', 'STATUS=leaving')
      return stopping
    },
  }
}

/** Never rejects: a manager that cannot be told must not end what runs. */
async function notify(address: string, words: readonly string[]): Promise<void> {
  const program = findProgram(PROGRAM)
  if (program === undefined) return tell(`cannot tell the service manager: this machine has no ${PROGRAM}`)
  const env = { ...process.env, NOTIFY_SOCKET: address }
  const { code, stderr } = await runProgram(program, words, { timeoutMs: TIMEOUT_MS, env })
  if (code !== 0) tell(`cannot tell the service manager: ${lastLines(stderr, 1)}`)
}
