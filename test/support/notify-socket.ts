import path from 'node:path'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from './temp-folder.ts'

/** A socket of the sd_notify(3) kind, as systemd gives one to what it starts. */
export interface NotifySocket extends AsyncDisposable {
  /** For the program's environment. */
  env: { NOTIFY_SOCKET: string }
  /** Everything that was said, in order, without barriers. */
  said(): string[]
  /** Waits until something that matches was said. */
  hears(what: RegExp): Promise<string>
}

/** Node opens no datagram socket of Unix. Whoever speaks waits until the descriptor that they send along is closed. */
const LISTEN = `
import os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(sys.argv[1])
print("listening", flush=True)
while True:
    words, descriptors, _, _ = socket.recv_fds(server, 4096, 8)
    for descriptor in descriptors:
        os.close(descriptor)
    if words != b"BARRIER=1":
        print(words.decode().strip().replace("\\n", " "), flush=True)
`

export async function startNotifySocket(): Promise<NotifySocket> {
  const place = path.join(makeTempFolder('notify'), 'socket')
  const program = new Program('python3', ['-c', LISTEN, place], { stdin: '' })
  await program.matches(/^listening$/m)
  const said = () => program.stdout.trim().split('\n').slice(1)
  return {
    env: { NOTIFY_SOCKET: place },
    said,
    hears: (what) => program.output(() => said().find((words) => what.test(words))),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}
