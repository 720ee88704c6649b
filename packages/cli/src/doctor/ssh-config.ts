import { spawn } from 'node:child_process'
import { LOOK_ONLY } from '../ssh/look-only.ts'
import { type Check, ok, warn } from './check.ts'

const SSH_TIMEOUT_MS = 10_000

/** Does `ssh host` lead to postern? `ssh -G` is the only one that knows: patterns, includes and order count. Nothing
 *  here is a failure, since not everybody uses ssh. */
export async function checkSshConfig(host: string, domain: string): Promise<Check> {
  const settings = await readSshSettings(host)
  if (settings === undefined) {
    return warn('ssh config', 'ssh cannot be started', 'install OpenSSH, if you want to use it')
  }
  if (settings instanceof Error) {
    return warn('ssh config', `ssh refuses its configuration: ${settings.message}`, 'correct ~/.ssh/config')
  }
  const command = settings.get('proxycommand') ?? ''
  if (!/\bpostern\b.*\bclient\s+tls\b/.test(command)) {
    const instead = command === '' ? 'connects to it directly' : `uses ${JSON.stringify(command)}`
    return warn(
      'ssh config',
      `ssh ${host} does not use postern, it ${instead}`,
      `run postern ssh-config --install, or add to ~/.ssh/config: Host *.${domain} (next line) ProxyCommand postern client tls --host %h`,
    )
  }
  if (/%p\b/.test(command)) {
    return warn(
      'ssh config',
      'the ProxyCommand passes %p, the port of ssh; --port is the port of the edge',
      'leave --port %p out of the ProxyCommand',
    )
  }
  return ok('ssh config', `ssh to names below ${domain} goes through postern`)
}

/** @returns undefined when there is no ssh, an Error with what ssh said */
function readSshSettings(host: string): Promise<Map<string, string> | Error | undefined> {
  return new Promise((resolve) => {
    // after --: a host name never is an option
    const ssh = spawn('ssh', ['-G', '--', host], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: SSH_TIMEOUT_MS,
      // what stands after `Match exec` is run; looking must not sign anything
      env: { ...process.env, [LOOK_ONLY]: '1' },
    })
    let [stdout, stderr] = ['', '']
    ssh.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    ssh.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    ssh.on('error', () => resolve(undefined))
    ssh.on('close', (code) => {
      if (code !== 0) return resolve(new Error(stderr.trim().split('\n').at(-1) ?? ''))
      resolve(new Map(stdout.split('\n').map(splitSetting)))
    })
  })
}

function splitSetting(line: string): [string, string] {
  const space = line.indexOf(' ')
  return space < 0 ? [line, ''] : [line.slice(0, space), line.slice(space + 1)]
}
