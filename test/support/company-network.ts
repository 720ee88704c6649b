import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { findFreePort } from '../../demo/free-port.ts'
import { type PrivateSshd, startPrivateSshd } from '../../demo/private-sshd.ts'
import { Program } from '../../demo/program.ts'
import type { FarMachine } from './far-machine.ts'
import { startHaproxy } from './haproxy.ts'
import { makeCertificate } from './nginx.ts'
import { makeTempFolder } from './temp-folder.ts'
import { until } from './until.ts'

/** Real proxies at the border of a company's network: they listen where its machines are, and know the edge by names that
 *  nobody else does. */

export const COMPANY_EDGE = 'edge.corp.test'

export interface Tinyproxy extends AsyncDisposable {
  /** `http://ADDRESS:PORT` */
  url: string
  /** What it was asked for, `HOST:PORT`, in order. */
  asked(): string[]
}

/** Debian's tinyproxy. @param lines more of its configuration */
export async function startTinyproxy(address: string, lines: readonly string[] = []): Promise<Tinyproxy> {
  const folder = makeTempFolder('tinyproxy')
  const port = await findFreePort()
  const [file, logFile] = [path.join(folder, 'tinyproxy.conf'), path.join(folder, 'log')]
  const config = [`Port ${port}`, `Listen ${address}`, `LogFile "${logFile}"`, 'LogLevel Info', 'Timeout 600']
  writeFileSync(file, `${[...config, ...lines].join('\n')}\n`)
  const words = [...knowingTheEdge(folder), 'tinyproxy', '-d', '-c', file]
  const program = new Program('unshare', words, { stdin: '' })
  const log = () => (existsSync(logFile) ? readFileSync(logFile, 'utf8') : '')
  try {
    await until('tinyproxy listens', () => log().includes('Accepting connections'))
  } catch (error) {
    await program.stop('SIGKILL')
    throw error
  }
  return {
    url: `http://${address}:${port}`,
    asked: () => [...log().matchAll(/CONNECT (\S+) HTTP/g)].map(([, place]) => place!),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

export interface TlsProxy extends AsyncDisposable {
  /** `https://NAME:PORT` */
  url: string
  port: number
  /** Its certificate, PEM: it is its own CA. */
  caFile: string
}

/** Debian's haproxy, which ends TLS in front of that proxy, with a certificate for this name. */
export async function startTlsProxy(name: string, proxy: Pick<Tinyproxy, 'url'>): Promise<TlsProxy> {
  const folder = makeTempFolder('tls-proxy')
  const port = await findFreePort()
  const [key, caFile, both] = ['key.pem', 'ca.pem', 'both.pem'].map((file) => path.join(folder, file)) as [
    ...[string, string, string],
  ]
  makeCertificate(name, key, caFile)
  writeFileSync(both, readFileSync(caFile, 'utf8') + readFileSync(key, 'utf8'), { mode: 0o600 })
  const { host, hostname: address } = new URL(proxy.url)
  const program = await startHaproxy(
    `listen tls
  mode tcp
  bind ${address}:${port},127.0.0.1:${port} ssl crt ${both}
  server tinyproxy ${host}
`,
    [port],
  )
  return {
    url: `https://${name}:${port}`,
    port,
    caFile,
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

/** A real sshd, to which a machine of the company opens `ssh -D`. */
export async function startBorderSshd(address: string): Promise<PrivateSshd> {
  const folder = makeTempFolder('border-sshd')
  const port = await findFreePort()
  return startPrivateSshd(folder, [`ListenAddress ${address}:${port}`], port, [
    'unshare',
    ...knowingTheEdge(folder),
  ])
}

/** SOCKS at a loopback port of the company's machine, through a real `ssh -D`: `socks5://127.0.0.1:PORT`. To be ended
 *  before its sshd, which waits for it. */
export async function openSshSocks(
  far: FarMachine,
  sshd: PrivateSshd,
): Promise<AsyncDisposable & { url: string }> {
  const port = await findFreePort()
  const knownHosts = path.join(sshd.folder, 'known_hosts')
  writeFileSync(knownHosts, `[${far.address}]:${sshd.port} ${sshd.hostKey}\n`)
  const options = [
    `UserKnownHostsFile=${knownHosts}`,
    'GlobalKnownHostsFile=none',
    'StrictHostKeyChecking=yes',
  ]
  const identity = ['IdentitiesOnly=yes', 'IdentityAgent=none', 'ExitOnForwardFailure=yes']
  const words = [
    'ssh',
    '-F',
    'none',
    '-v',
    '-N',
    '-D',
    `127.0.0.1:${port}`,
    '-i',
    sshd.keyFile,
    '-p',
    String(sshd.port),
  ]
  const ssh = far.run(
    [
      ...words,
      ...[...options, ...identity].flatMap((option) => ['-o', option]),
      `${sshd.user}@${far.address}`,
    ],
    { home: sshd.folder },
  )
  await ssh.matches(/Local forwarding listening on 127\.0\.0\.1/)
  return {
    url: `socks5://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: () => ssh[Symbol.asyncDispose](),
  }
}

/** Words of `unshare` before a program that finds the edge in a hosts file of its own. */
function knowingTheEdge(folder: string): string[] {
  const hosts = path.join(folder, 'hosts')
  writeFileSync(hosts, `127.0.0.1 localhost ${COMPANY_EDGE}\n`)
  return ['--mount', '--', 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', hosts]
}
