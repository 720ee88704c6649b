import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { stateFolder } from '../credentials/home.ts'
import { type KnownEdge, listEdges, pickEdge } from '../credentials/known-edge.ts'
import { takeLock } from '../credentials/lock.ts'
import { print, printable, printJson, tell, tellMore } from '../io.ts'
import { configFiles, install, uninstall } from '../ssh/config-file.ts'
import { sshFolder } from '../ssh/key-files.ts'
import { formatConfig, formatInclude, readSurroundings, type SshSurroundings } from '../ssh/settings.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'

/** `postern ssh-config`: plain `ssh HOST` for every service of the edges that one has signed in to. */

interface SshConfigOptions {
  install?: boolean
  uninstall?: boolean
  print?: boolean
  json?: boolean
  edge?: string
}

const LOCK_TIMEOUT_MS = 30_000

async function runSshConfig(options: SshConfigOptions): Promise<void> {
  const wanted = [options.install, options.uninstall, options.print].filter(Boolean)
  if (wanted.length !== 1) {
    throw new PosternError('USAGE_INVALID', 'say what to do: one of --install, --uninstall and --print')
  }
  if (options.json && !options.print) throw new PosternError('USAGE_INVALID', '--json belongs to --print')
  const around = readSurroundings()
  if (options.print) return printConfig(pickEdges(options), around, options)
  using _lock = await takeLock(path.join(stateFolder(), 'ssh-config.lock'), { timeoutMs: LOCK_TIMEOUT_MS })
  if (options.install) installConfig(pickEdges(options), around, options.edge)
  else uninstallConfig(around)
}

async function printConfig(
  edges: readonly KnownEdge[],
  around: SshSurroundings,
  { edge, json }: SshConfigOptions,
): Promise<void> {
  const text = formatConfig(edges, around, edge)
  if (!json) return print(text)
  const { own: file, config: includedBy } = configFiles(sshFolder())
  await printJson({ file, text, includedBy, include: formatInclude(file, around) })
}

function installConfig(edges: readonly KnownEdge[], around: SshSurroundings, origin?: string): void {
  const files = configFiles(sshFolder())
  install(files, formatInclude(files.own, around), formatConfig(edges, around, origin))
  tell(`ssh now reaches ${edges.map(({ domain }) => `*.${printable(domain)}`).join(', ')} through postern`)
  tellMore(`it reads ${printable(files.own)}, which the first line of ${printable(files.config)} includes`)
  if (around.home !== around.sshHome) {
    tellMore(`but ssh looks in ${printable(around.sshHome)}, whatever HOME says: name the file with ssh -F`)
  }
}

function uninstallConfig(around: SshSurroundings): void {
  const files = configFiles(sshFolder())
  const done = uninstall(files, formatInclude(files.own, around))
  tell(done ? 'the ssh configuration is as it was before' : 'there was nothing to take away')
}

/** @throws EDGE_UNKNOWN · USAGE_INVALID when two edges have one domain */
function pickEdges({ edge }: SshConfigOptions): KnownEdge[] {
  if (edge !== undefined) return [pickEdge(stateFolder(), edge)]
  const edges = listEdges(stateFolder())
  if (edges.length === 0) return [pickEdge(stateFolder())]
  const twice = edges.find(({ domain }, at) => edges.findIndex((other) => other.domain === domain) !== at)
  if (!twice) return edges
  const fitting = edges.filter(({ domain }) => domain === twice.domain)
  throw new PosternError('USAGE_INVALID', `several edges you signed in to serve ${twice.domain}`, {
    hint: `name one: ${fitting.map(({ origin }) => `--edge ${origin}`).join(' or ')}`,
  })
}

export function addSshConfig(program: Command): void {
  const command = program
    .command('ssh-config')
    .description(
      'make plain ssh, scp, sftp, rsync and git reach services, with a certificate in place of keys',
    )
    .option('--install', 'write ~/.ssh/postern.conf and include it at the top of ~/.ssh/config')
    .option('--uninstall', 'take both away again: every other byte stays')
    .option('--print', 'print what --install would write into ~/.ssh/postern.conf')
    .option('--json', 'with --print: print one JSON object')
    .option('--edge <url>', 'this edge only (default: every edge you have signed in to)', parseEdgeOrigin)
    .action(runSshConfig)
  addExamples(command, [
    [
      'once on each machine, after the first postern login',
      'postern ssh-config --install && ssh ubuntu@crimson-thunder-8434.edge.example.com',
    ],
    ['what ssh makes of it', 'ssh -G crimson-thunder-8434.edge.example.com'],
    ['as before', 'postern ssh-config --uninstall'],
  ])
}
