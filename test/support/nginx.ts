import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { Program } from '../../demo/program.ts'
import type { EdgeProcess } from './edge-process.ts'
import { makeTempFolder } from './temp-folder.ts'
import { until } from './until.ts'

/** Debian's nginx in front of an edge: it ends TLS with a certificate of its own, as a CDN does, and passes HTTP and
 *  WebSockets on. */
export interface Nginx extends AsyncDisposable {
  /** Certificate of nginx, PEM. */
  caFile: string
  /** Status of every WebSocket that was opened, in order: told when it has ended. */
  webSockets(): number[]
}

/** @param port where people find the edge; it listens on another one */
export async function startNginx(
  edge: EdgeProcess,
  { listenPort, port }: { listenPort: number; port: number },
): Promise<Nginx> {
  const folder = makeTempFolder('nginx')
  const at = (name: string) => path.join(folder, name)
  makeCertificate(edge.domain, at('key.pem'), at('cert.pem'))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${at(kind)};`,
  )
  writeFileSync(
    at('nginx.conf'),
    `daemon off; master_process off; pid ${at('pid')}; error_log ${at('error.log')} notice;
events {}
http {
  ${temporary.join(' ')}
  log_format short '$status $request_uri'; access_log ${at('access.log')} short;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server {
    listen 127.0.0.1:${port} ssl; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate ${at('cert.pem')}; ssl_certificate_key ${at('key.pem')};
    location / {
      proxy_pass https://127.0.0.1:${listenPort};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_ssl_server_name on; proxy_ssl_name ${edge.domain};
      proxy_ssl_verify on; proxy_ssl_trusted_certificate ${edge.caFile};
      proxy_read_timeout 60s;
    }
  }
}
`,
  )
  const program = new Program('nginx', ['-p', folder, '-e', at('error.log'), '-c', at('nginx.conf')], {
    stdin: '',
  })
  const read = (name: string) => {
    try {
      return readFileSync(at(name), 'utf8')
    } catch {
      return ''
    }
  }
  try {
    await until('nginx listens', () => read('pid') !== '' || !program.isRunning)
    if (!program.isRunning) throw new Error(`nginx has ended\n${program.logs()}${read('error.log')}`)
  } catch (error) {
    await program.stop('SIGKILL')
    throw error
  }
  return {
    caFile: at('cert.pem'),
    webSockets: () =>
      [...read('access.log').matchAll(/^(\d+) \/v1\/transport$/gm)].map(([, status]) => Number(status)),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

export function makeCertificate(name: string, keyFile: string, certificateFile: string): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile]
  const subject = ['-subj', '/CN=front', '-addext', `subjectAltName=DNS:${name}`, '-days', '2']
  execFileSync('openssl', ['req', '-x509', ...key, ...subject, '-out', certificateFile], { stdio: 'ignore' })
}
