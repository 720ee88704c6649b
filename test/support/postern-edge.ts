import { fileURLToPath } from 'node:url'
import { Program, type ProgramResult } from '../../demo/program.ts'
import type { EdgeStatus } from '../../packages/edge/src/status.ts'
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

export type Certificate = EdgeStatus['certificate'] & { daysLeft: number }

/** What `postern-edge status` says about the certificate of a running edge. */
export async function certificateOf(edge: Pick<EdgeProcess, 'configFile'>): Promise<Certificate> {
  const { code, stdout, stderr } = await runPosternEdge(edge, ['status', '--json'])
  if (code !== 0) throw new Error(stderr)
  return JSON.parse(stdout).certificate
}
