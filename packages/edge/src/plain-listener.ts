import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PosternError } from '@postern/shared/errors'

/** A small HTTP server in the clear, beside the one TLS port: few connections, short times.
 *  @param what and @param key name it where the address cannot be had
 *  @throws CONFIG_INVALID the address cannot be listened on */
export async function openPlainListener(
  { host, port }: { host: string; port: number },
  { what, key, answer }: { what: string; key: string; answer: RequestListener },
): Promise<AsyncDisposable & { port: number }> {
  const server = createServer(
    { requestTimeout: 5_000, headersTimeout: 5_000, connectionsCheckingInterval: 1_000 },
    answer,
  )
  server.maxConnections = 32
  server.setTimeout(10_000)
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new PosternError('CONFIG_INVALID', `${what} cannot be served on ${host}:${port} (${cause.code})`, {
          hint: `choose another address for ${key}, or stop what uses this one`,
          cause,
        }),
      ),
    )
    server.listen({ host, port }, resolve)
  })
  server.on('error', () => {}) // a connection that could not be accepted, for want of descriptors
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}
