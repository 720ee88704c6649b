import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import type { EdgeConfig } from '../config/config.ts'
import { type ConfigProblem, parseConfig } from '../config/parse.ts'
import type { RunningEdge } from '../edge.ts'
import { createLogger, type LogLevel } from '../logger.ts'
import type { Finish, ProgramParts } from '../program.ts'
import { drainOption, logLevelOption } from './options.ts'
import { loginLine, runEdge } from './run-edge.ts'

const DOMAIN = 'edge.localhost'

interface DevOptions {
  dataDir?: string
  listen: string
  json?: boolean
  drain: number
  logLevel: LogLevel
}

export function addDev(program: Command, parts: ProgramParts, finish: Finish): void {
  program
    .command('dev')
    .description('run an edge for trying things out: on this machine only, believing any address')
    .option(
      '--data-dir <dir>',
      'where to keep keys and store (default: a temporary folder, deleted at the end)',
    )
    .option('--listen <address>', 'loopback address and port; port 0 takes a free one', '127.0.0.1:0')
    .option('--json', 'print one JSON line { edge, caFile } on stdout when ready, and log to stderr')
    .addOption(drainOption().default(0, '0s'))
    .addOption(logLevelOption())
    .addHelpText(
      'after',
      `
Everybody who signs in may expose services and is an admin.

Examples:
  $ postern-edge dev
  $ postern-edge dev --data-dir ./edge-data --listen 127.0.0.1:8443`,
    )
    .action(async (options: DevOptions) => finish(await runDev(options, parts)))
}

async function runDev(options: DevOptions, parts: ProgramParts): Promise<number> {
  const stop = parts.takeStopSignal()
  const isTemporary = options.dataDir === undefined
  const dataDir = isTemporary
    ? await mkdtemp(path.join(tmpdir(), 'postern-edge-dev-'))
    : path.resolve(parts.cwd, options.dataDir!)
  try {
    return await runEdge(devConfig(dataDir, options.listen), {
      log: createLogger(options.json ? parts.stderr : parts.stdout, options.logLevel),
      stop,
      drainMs: options.drain,
      onReady: (edge) => announce(edge, options, parts),
    })
  } finally {
    if (isTemporary) await rm(dataDir, { recursive: true, force: true })
  }
}

/** The configuration of `dev`: defaults, on loopback, everybody may do everything.
 *  @throws USAGE_INVALID the listen address is malformed or can be reached from elsewhere */
export function devConfig(dataDir: string, listen: string): EdgeConfig {
  const text = JSON.stringify({ domain: DOMAIN, listen, data_dir: dataDir, identity: { dev: true } })
  const everybody = { emailDomains: [], emailAddresses: [], anyAuthenticated: true }
  try {
    const files = {
      readSecret: () => '',
      checkCertificate: () => {},
      readCa: () => '',
      checkProgram: () => {},
    }
    const config = parseConfig(text, { name: 'dev', folder: dataDir, files })
    return { ...config, operators: everybody, admins: everybody }
  } catch (error) {
    if (!(error instanceof PosternError)) throw error
    const [problem] = error.details!.problems as ConfigProblem[]
    throw new PosternError('USAGE_INVALID', `--listen ${problem!.value} ${problem!.message}`, {
      hint: 'give a loopback address, such as --listen 127.0.0.1:8443; for others there is postern-edge init',
      cause: error,
    })
  }
}

function announce(edge: RunningEdge, options: DevOptions, parts: ProgramParts): void {
  if (options.json) parts.stdout.write(`${JSON.stringify({ edge: edge.origin, caFile: edge.caFile })}\n`)
  parts.stderr.write(
    `postern-edge: ready at ${edge.origin}\n  sign in: ${loginLine(edge)}\n  the CA: ${edge.caFile}\n`,
  )
}
