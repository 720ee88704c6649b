import http from 'node:http'
import type { EdgeProcess } from './edge-process.ts'

/** Key of the edge's configuration that switches metrics on, at a free port. */
export const METRICS_ON = { listen: '127.0.0.1:0' }

/** What `/metrics` says now, by the whole name: `postern_flows_closed_total{code="ok"}`. */
export async function readMetrics(edge: EdgeProcess): Promise<Map<string, number>> {
  const port = /"metrics\.ready".*?"port":(\d+)|"port":(\d+).*?"metrics\.ready"/.exec(edge.logs())
  if (!port) throw new Error(`the edge serves no metrics\n${edge.logs()}`)
  const text = await get(Number(port[1] ?? port[2]))
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => /^(.*) (\S+)$/.exec(line)!.slice(1)).map(([name, value]) => [name!, Number(value)]),
  )
}

function get(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    // no agent: a kept connection would be one of the edge's descriptors
    const request = http.get(
      { host: '127.0.0.1', port, path: '/metrics', agent: false },
      async (response) => {
        let text = ''
        for await (const chunk of response.setEncoding('utf8')) text += chunk
        resolve(text)
      },
    )
    request.on('error', reject)
  })
}
