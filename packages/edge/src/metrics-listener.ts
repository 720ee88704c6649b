import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PosternError } from '@postern/shared/errors'
import type { Registry } from 'prom-client'

/** Serves `/metrics` in the clear, for a Prometheus on the same machine: an address and a port of its own, so that
 *  nothing of it can be reached through the one TLS port.
 *  @throws CONFIG_INVALID the address cannot be listened on */
export async function openMetricsListener(
  { host, port }: { host: string; port: number },
  registry: Registry,
): Promise<AsyncDisposable & { port: number }> {
  const server = createServer(
    { requestTimeout: 5_000, headersTimeout: 5_000, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      if (request.method !== 'GET' || request.url !== '/metrics') return void response.writeHead(404).end()
      registry.metrics().then(
        (text) => response.writeHead(200, { 'Content-Type': registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      )
    },
  )
  server.maxConnections = 32
  server.setTimeout(10_000)
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new PosternError('CONFIG_INVALID', `metrics cannot be served on ${host}:${port} (${cause.code})`, {
          hint: 'choose another address for metrics.listen, or stop what uses this one',
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
