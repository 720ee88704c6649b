import { fileURLToPath } from 'node:url'
import { Program } from './program.ts'

const POSTERN_EDGE = fileURLToPath(new URL('../packages/edge/bin/postern-edge.js', import.meta.url))

export interface EdgeProgram {
  program: Program
  /** `https://edge.localhost:PORT` */
  origin: string
  port: number
}

/** Runs the built `postern-edge serve` with this file and waits until it is ready.
 *  @throws with what it said, when it ends before */
export async function startEdgeProgram(
  configFile: string,
  options: { args?: readonly string[]; env?: NodeJS.ProcessEnv; program?: string } = {},
): Promise<EdgeProgram> {
  const args = [options.program ?? POSTERN_EDGE, 'serve', '--config', configFile, ...(options.args ?? [])]
  const program = new Program(process.execPath, args, {
    env: { ...process.env, ...options.env },
    stdin: '',
  })
  try {
    const [, origin = '', port] = await program.matches(/ready at (https:\/\/[^\s:]+:(\d+))\n/)
    return { program, origin, port: Number(port) }
  } catch (error) {
    await program.stop('SIGKILL')
    throw error
  }
}
