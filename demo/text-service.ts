import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'

/** The demo's private service: lines of text on a loopback port. It greets, answers `hello`, says every other line
 *  back, and closes when the other side has nothing more to say. */

const GREETING = 'This is a private text service. It listens on 127.0.0.1 only. Say hello.\n'
const HELLO = 'Hello! No open port, no VPN, no shared key: you are here because Postern knows you by name.\n'
const MAX_LINE_CHARACTERS = 4_096

export interface TextService extends AsyncDisposable {
  port: number
  /** How many connections have ever arrived. */
  countConnections(): number
}

export async function startTextService(): Promise<TextService> {
  const sockets = new Set<Socket>()
  let count = 0
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    count++
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    talk(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    countConnections: () => count,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

function talk(socket: Socket): void {
  let line = ''
  socket.setEncoding('utf8')
  socket.write(GREETING)
  socket.on('data', (text: string) => {
    const lines = (line + text).split('\n')
    line = (lines.pop() ?? '').slice(0, MAX_LINE_CHARACTERS)
    const reply = lines.map(answer).join('')
    if (!socket.write(reply)) socket.pause()
  })
  socket.on('drain', () => socket.resume())
  socket.on('end', () => socket.end(line === '' ? '' : answer(line)))
}

function answer(line: string): string {
  const words = line.trim()
  return words.toLowerCase() === 'hello' ? HELLO : `You said: ${words}\n`
}
