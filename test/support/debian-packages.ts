import { accessSync, constants } from 'node:fs'
import path from 'node:path'

/** Programs the tests use beside Node, and the Debian package that brings each. A test that starts another
 *  program has its row here. */
export const DEBIAN_PACKAGES: Readonly<Record<string, string>> = {
  bash: 'bash',
  'carbon-cache': 'graphite-carbon',
  certutil: 'libnss3-tools',
  chromium: 'chromium',
  curl: 'curl',
  faketime: 'faketime',
  fish: 'fish',
  git: 'git',
  haproxy: 'haproxy',
  ip: 'iproute2',
  'make-cadir': 'easy-rsa',
  'nc.openbsd': 'netcat-openbsd',
  nginx: 'nginx',
  openssl: 'openssl',
  pebble: 'pebble',
  'pebble-challtestsrv': 'pebble',
  pg_ctlcluster: 'postgresql',
  prlimit: 'util-linux',
  unshare: 'util-linux',
  python3: 'python3',
  'redis-cli': 'redis-tools',
  'redis-server': 'redis-server',
  rsync: 'rsync',
  scp: 'openssh-client',
  script: 'bsdutils',
  ssh: 'openssh-client',
  sftp: 'openssh-client',
  'ssh-agent': 'openssh-client',
  'ssh-keygen': 'openssh-client',
  'ssh-keyscan': 'openssh-client',
  socat: 'socat',
  sshd: 'openssh-server',
  stunnel: 'stunnel4',
  'systemd-analyze': 'systemd',
  tinyproxy: 'tinyproxy',
  zsh: 'zsh',
}

/** Packages of the programs that are not there, each once, in the order of the alphabet. */
export function missingPackages(
  packages: Readonly<Record<string, string>> = DEBIAN_PACKAGES,
  searchPath = process.env.PATH ?? '',
): string[] {
  // servers lie where only root's PATH leads
  const folders = [...searchPath.split(':'), '/usr/sbin', '/sbin']
  const missing = Object.entries(packages).filter(([program]) => !isInstalled(program, folders))
  return [...new Set(missing.map(([, name]) => name))].sort()
}

function isInstalled(program: string, folders: readonly string[]): boolean {
  return folders.some((folder) => {
    try {
      accessSync(path.join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
