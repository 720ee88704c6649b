import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { findFreePort } from '../../demo/free-port.ts'
import { Program } from '../../demo/program.ts'
import { type Authority, createAuthorities } from '../../packages/edge/src/ca/authorities.ts'
import { issueEdgeCertificate } from '../../packages/edge/src/ca/issue-edge.ts'
import { makeTempFolder } from './temp-folder.ts'

/** Let's Encrypt's own ACME server for tests, with a DNS of its own in which every name is this machine. It looks for the
 *  proofs as a public CA does, and makes a new root at every start. */

const SERVER = 'pebble.localhost'

export interface PebbleOptions {
  /** Ports where it looks for proofs. */
  tlsPort?: number
  httpPort?: number
  /** How long its certificates are valid; five years when left out. */
  validitySeconds?: number
  /** Of a hundred good nonces so many are refused; none when left out. */
  refusedNonces?: number
  /** Its DNS has no address for any name. */
  knowsNoAddress?: boolean
  /** It certifies nothing of these. */
  blockedDomains?: readonly string[]
  /** Key ids with their keys, base64url: then no account is made without one. */
  externalAccounts?: Readonly<Record<string, string>>
  /** Debian's knows no renewal information (RFC 9773): a server in front says this about a certificate. */
  advise?: (id: string, response: ServerResponse) => void
  /** It is so busy that a server in front answers orders. */
  refuseOrder?: (response: ServerResponse) => void
}

export interface Pebble extends AsyncDisposable {
  /** Keys of `tls.acme` to use it. */
  settings: { directory: string; ca_file: string; accept_terms: true }
  /** Writes the root of what it certifies now.
   *  @returns its file */
  fetchRoot(): Promise<string>
  /** A program for `tls.acme.dns_hook`. */
  dnsHook: string
  /** What it has said. */
  logs(): string
  /** Ends and, later, starts again at the same port. */
  stop(): Promise<void>
  start(): Promise<void>
}

export async function startPebble(options: PebbleOptions): Promise<Pebble> {
  await using cleanup = new AsyncDisposableStack()
  const folder = makeTempFolder('pebble')
  const { edge: authority } = await createAuthorities(folder, Date.now())
  const [port, managementPort, dnsPort, dnsManagementPort] = [
    await findFreePort(),
    await findFreePort(),
    await findFreePort(),
    await findFreePort(),
  ]
  const config = await writeConfig(folder, authority, { ...options, port, managementPort })
  const dns = cleanup.use(
    new Program('pebble-challtestsrv', [
      ...['-dns01', `127.0.0.1:${dnsPort}`, '-management', `127.0.0.1:${dnsManagementPort}`],
      ...(options.knowsNoAddress ? ['-defaultIPv4', ''] : []),
      ...['-defaultIPv6', '', '-http01', '', '-https01', '', '-tlsalpn01', ''],
    ]),
  )
  await dns.matches(/management/i)
  let server: Program | undefined
  const start = async () => {
    server = new Program('pebble', ['-config', config, '-dnsserver', `127.0.0.1:${dnsPort}`], {
      env: {
        ...process.env,
        PEBBLE_VA_NOSLEEP: '1',
        PEBBLE_AUTHZREUSE: '0',
        PEBBLE_WFE_NONCEREJECT: String(options.refusedNonces ?? 0),
      },
    })
    await server.matches(/ACME directory available/)
  }
  const stop = async () => void (await server?.stop('SIGTERM'))
  cleanup.defer(stop)
  await start()
  const ownDirectory = `https://${SERVER}:${port}/dir`
  const readDirectory = () => get(ownDirectory, authority.certificatePem)
  const isFronted = options.advise !== undefined || options.refuseOrder !== undefined
  const directory = isFronted
    ? await startFront(cleanup, { ...options, authority, readDirectory })
    : ownDirectory
  const kept = cleanup.move()
  return {
    settings: {
      directory,
      ca_file: authority.certificateFile,
      accept_terms: true,
    },
    async fetchRoot() {
      const file = path.join(folder, `root-${server!.pid}.pem`)
      writeFileSync(file, await get(`https://${SERVER}:${managementPort}/roots/0`, authority.certificatePem))
      return file
    },
    dnsHook: writeHook(folder, dnsManagementPort),
    logs: () => server?.logs() ?? '',
    stop,
    start,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

async function writeConfig(
  folder: string,
  authority: Authority,
  options: PebbleOptions & { port: number; managementPort: number },
): Promise<string> {
  const own = await issueEdgeCertificate(authority, SERVER, Date.now())
  const at = (name: string) => path.join(folder, name)
  writeFileSync(at('cert.pem'), own.certificate)
  writeFileSync(at('key.pem'), own.key, { mode: 0o600 })
  const { externalAccounts, validitySeconds } = options
  const pebble = {
    listenAddress: `127.0.0.1:${options.port}`,
    managementListenAddress: `127.0.0.1:${options.managementPort}`,
    certificate: at('cert.pem'),
    privateKey: at('key.pem'),
    tlsPort: options.tlsPort ?? 1,
    httpPort: options.httpPort ?? 1,
    ocspResponderURL: '',
    domainBlocklist: options.blockedDomains ?? [],
    externalAccountBindingRequired: externalAccounts !== undefined,
    externalAccountMACKeys: externalAccounts ?? {},
    ...(validitySeconds === undefined ? {} : { certificateValidityPeriod: validitySeconds }),
  }
  writeFileSync(at('pebble.json'), JSON.stringify({ pebble }))
  return at('pebble.json')
}

/** Serves the directory and what the CA itself does not; for everything else the directory leads to the CA.
 *  @returns the URL of its directory */
async function startFront(
  cleanup: AsyncDisposableStack,
  parts: Pick<PebbleOptions, 'advise' | 'refuseOrder'> & {
    authority: Authority
    readDirectory: () => Promise<string>
  },
): Promise<string> {
  const { advise, refuseOrder, authority, readDirectory } = parts
  const { certificate, key } = await issueEdgeCertificate(authority, SERVER, Date.now())
  const server = https.createServer({ cert: certificate, key }, async ({ url = '' }, response) => {
    if (url === '/order') return refuseOrder?.(response)
    if (url !== '/dir') return advise?.(url.replace('/renewal-info/', ''), response)
    const directory = JSON.parse(await readDirectory())
    if (advise) directory.renewalInfo = `${origin}/renewal-info`
    if (refuseOrder) directory.newOrder = `${origin}/order`
    response.end(JSON.stringify(directory))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanup.defer(() => {
    server.close()
    server.closeAllConnections()
  })
  const origin = `https://${SERVER}:${(server.address() as AddressInfo).port}`
  return `${origin}/dir`
}

/** As an operator would write it: one call of the DNS service for each. */
function writeHook(folder: string, managementPort: number): string {
  const file = path.join(folder, 'dns-hook')
  writeFileSync(
    file,
    `#!/bin/sh
set -eu
case "$1" in present) what=set-txt ;; cleanup) what=clear-txt ;; esac
echo "$1 $2" >> '${folder}/dns-hook.log'
exec curl -sSf -X POST -d "{\\"host\\": \\"$2.\\", \\"value\\": \\"$3\\"}" http://127.0.0.1:${managementPort}/$what
`,
  )
  chmodSync(file, 0o755)
  return file
}

function get(url: string, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { host, hostname, port, pathname } = new URL(url)
    const lookup = { host: '127.0.0.1', servername: hostname, port, headers: { host } }
    https
      .get({ ...lookup, path: pathname, ca, agent: false }, async (response) => {
        let text = ''
        for await (const chunk of response.setEncoding('utf8')) text += chunk
        resolve(text)
      })
      .on('error', reject)
  })
}
