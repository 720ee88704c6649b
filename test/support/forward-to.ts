import { connect, createServer } from 'node:net'

/** A program: `forward-to.ts PORT ADDRESS` hands every connection to PORT on loopback on to ADDRESS. */
const [port, host] = [Number(process.argv[2]), process.argv[3]!]

createServer({ allowHalfOpen: true }, (near) => {
  const far = connect({ host, port, allowHalfOpen: true })
  for (const [one, other] of [
    [near, far],
    [far, near],
  ] as const) {
    one.on('error', () => other.destroy())
    one.pipe(other)
  }
}).listen(port, '127.0.0.1', () => process.stdout.write('forwarding\n'))
