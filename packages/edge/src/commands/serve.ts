import type { Command } from 'commander'
import { loadConfig } from '../config/load.ts'
import type { RunningEdge } from '../edge.ts'
import { createLogger, type LogLevel } from '../logger.ts'
import type { Finish, ProgramParts } from '../program.ts'
import { configOption, drainOption, logLevelOption } from './options.ts'
import { loginLine, runEdge } from './run-edge.ts'

export function addServe(program: Command, parts: ProgramParts, finish: Finish): void {
  program
    .command('serve')
    .description('run the edge')
    .addOption(configOption())
    .addOption(drainOption())
    .addOption(logLevelOption())
    .addHelpText(
      'after',
      `
Logs one JSON object per line on stdout. The first SIGTERM or SIGINT takes no new flows and lets the live ones
finish (exit code 0) until the deadline (exit code 1); the second ends at once.

Examples:
  $ postern-edge serve --config /etc/postern-edge/edge.yaml
  $ postern-edge serve --config edge.yaml --drain 5m --log-level debug`,
    )
    .action(async (options: { config: string; drain: number; logLevel: LogLevel }) => {
      const config = loadConfig(options.config)
      const exitCode = await runEdge(config, {
        log: createLogger(parts.stdout, options.logLevel),
        stop: parts.takeStopSignal(),
        drainMs: options.drain,
        onReady: (edge) =>
          parts.stderr.write(
            `postern-edge: ready at ${edge.origin}\n${awaitedLine(edge, options)}  sign in: ${loginLine(edge)}\n`,
          ),
      })
      finish(exitCode)
    })
}

/** Whoever signs in too soon hears that the edge is not to be trusted. */
function awaitedLine({ isCertificateAwaited }: RunningEdge, { config }: { config: string }): string {
  if (!isCertificateAwaited) return ''
  return `  its first certificate is still to come, how far it is: postern-edge status --config ${config}\n`
}
