import { fileURLToPath } from 'node:url'
import { Program, type ProgramResult } from '../../demo/program.ts'
import type { EdgeProcess } from './edge-process.ts'

const POSTERN_EDGE: string = fileURLToPath(
  new URL('../../packages/edge/bin/postern-edge.js', import.meta.url),
)

/** Runs a command of the built `postern-edge` on the edge's configuration, to its end. Never throws for an exit code. */
export function runPosternEdge(
  { configFile }: Pick<EdgeProcess, 'configFile'>,
  args: readonly string[],
  env?: NodeJS.ProcessEnv,
): Promise<ProgramResult> {
  return new Program(process.execPath, [POSTERN_EDGE, ...args, '--config', configFile], {
    stdin: '',
    ...(env ? { env: { ...process.env, ...env } } : {}),
  }).ended
}
