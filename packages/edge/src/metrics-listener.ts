import type { Registry } from 'prom-client'
import { openPlainListener } from './plain-listener.ts'

/** Serves `/metrics` in the clear, for a Prometheus on the same machine: an address and a port of its own, so that
 *  nothing of it can be reached through the one TLS port.
 *  @throws CONFIG_INVALID the address cannot be listened on */
export function openMetricsListener(
  address: { host: string; port: number },
  registry: Registry,
): Promise<AsyncDisposable & { port: number }> {
  return openPlainListener(address, {
    what: 'metrics',
    key: 'metrics.listen',
    answer(request, response) {
      if (request.method !== 'GET' || request.url !== '/metrics') return void response.writeHead(404).end()
      registry.metrics().then(
        (text) => response.writeHead(200, { 'Content-Type': registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      )
    },
  })
}
