import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { SshdFiles } from './effective-config.ts'
import { lastLines, requireProgram } from './run-program.ts'

/** A second sshd on a loopback port, to try a configuration before the real one reads it. It runs as inetd would
 *  run it, one process for each connection: so it reads exactly the files that sshd reads, and neither binds the
 *  ports that they name nor writes their PidFile. */
export class SecondSshd implements AsyncDisposable {
  readonly #server: Server
  readonly #children = new Set<ChildProcess>()
  #log = ''

  private constructor(files: SshdFiles, options: readonly string[]) {
    const args = ['-i', '-e', '-f', files.configFile, ...options.flatMap((option) => ['-o', option])]
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#serve(socket, files.sshd, args))
  }

  /** @param options over those of the file, `Keyword value` */
  static async start(files: SshdFiles, options: readonly string[] = []): Promise<SecondSshd> {
    const sshd = new SecondSshd(files, options)
    sshd.#server.listen(0, '127.0.0.1')
    await once(sshd.#server, 'listening')
    return sshd
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** What it said of the last connection. */
  get lastWords(): string {
    return lastLines(this.#log)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    this.#server.close()
  }

  #serve(socket: Socket, sshd: string, args: readonly string[]): void {
    this.#log = ''
    const child = spawn(sshd, [...args], { stdio: [socket, socket, 'pipe'] })
    this.#children.add(child)
    child.stderr!.on('data', (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-8_192)
    })
    child.on('error', (error) => {
      this.#log += error.message
    })
    child.on('close', () => this.#children.delete(child))
    socket.destroy() // the child has its own
  }
}

export interface Login {
  port: number
  user: string
  /** A private key; or a public one alone, which asks whether it would do. */
  keyFile: string
  certificateFile?: string
  /** What sshd has to say for the answer to be yes. */
  expect: 'key accepted' | 'signed in'
  /** An empty file for what is learned of the host: it is our own child. */
  knownHostsFile: string
}

const SAYS_YES = {
  'key accepted': /Server accepts key|Authenticated to /,
  // a second factor may follow: the certificate has done its part
  'signed in': /Authenticated to |Authenticated using "publickey" with partial success/,
} as const
const LOGIN_TIMEOUT_MS = 30_000

/** Tries one login with ssh; no command is run. */
export async function tryLogin(login: Login): Promise<boolean> {
  const child = spawn(requireProgram('ssh'), loginArguments(login), { stdio: ['ignore', 'ignore', 'pipe'] })
  const timer = setTimeout(() => child.kill('SIGKILL'), LOGIN_TIMEOUT_MS)
  let said = ''
  try {
    for await (const chunk of child.stderr) {
      said = (said + chunk).slice(-65_536)
      if (SAYS_YES[login.expect].test(said)) return true
    }
    return false
  } finally {
    clearTimeout(timer)
    child.kill('SIGKILL')
  }
}

function loginArguments({ port, user, keyFile, certificateFile, knownHostsFile }: Login): string[] {
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=accept-new',
    `UserKnownHostsFile=${quoteOption(knownHostsFile)}`,
    'GlobalKnownHostsFile=/dev/null',
    'IdentityAgent=none',
    'IdentitiesOnly=yes',
    `IdentityFile=${quoteOption(keyFile)}`,
    ...(certificateFile === undefined ? [] : [`CertificateFile=${quoteOption(certificateFile)}`]),
    'PreferredAuthentications=publickey',
    'ControlPath=none',
    'ConnectTimeout=20',
  ]
  return [
    ...['-F', 'none', '-v', '-N', '-T', '-p', String(port), '-l', user],
    ...options.flatMap((option) => ['-o', option]),
    '127.0.0.1',
  ]
}

/** For the value of an option of ssh, in which `%` begins a token. */
function quoteOption(file: string): string {
  return `"${file.replaceAll('%', '%%')}"`
}
