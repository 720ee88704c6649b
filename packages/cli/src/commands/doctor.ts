import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { stateFolder } from '../credentials/home.ts'
import { findEdgeOfHost, type KnownEdge, pickEdge } from '../credentials/known-edge.ts'
import { type Check, fail } from '../doctor/check.ts'
import type { Destination } from '../doctor/person.ts'
import { print, printable, printJson, tell } from '../io.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'

/** `postern doctor`: looks at everything that a connection needs, and says the next step for what is wrong. Asks for
 *  no sign-in and changes nothing but the stored certificate. */

interface DoctorOptions {
  host?: string
  edge?: string
  json?: boolean
}

async function runDoctor(options: DoctorOptions): Promise<void> {
  const found = findEdge(options)
  const checks = 'edge' in found ? await examine(found.edge, found.destination) : [found]
  if (options.json) {
    await printJson({ ...('edge' in found ? { edge: found.edge.origin } : {}), checks })
  } else {
    await print(checks.map(describe).join(''))
    if (!options.host) tell('name a service with --host to try a certificate and a flow too')
  }
  const failed = checks.filter(({ state }) => state === 'fail').map(({ name }) => name)
  if (failed.length === 0) return
  throw new PosternError('CHECK_FAILED', `not everything is well: ${failed.join(', ')}`)
}

/** The edge that is meant, or why there is none. */
function findEdge(options: DoctorOptions): { edge: KnownEdge; destination: Destination | undefined } | Check {
  const home = stateFolder()
  try {
    if (options.host === undefined) return { edge: pickEdge(home, options.edge), destination: undefined }
    const { edge, label, host } = findEdgeOfHost(home, options.host, { origin: options.edge })
    return { edge, destination: { label, host } }
  } catch (error) {
    if (error instanceof PosternError && error.code === 'EDGE_UNKNOWN') return fail('edge', error)
    throw error
  }
}

/** What needs the network waits for what it rests on: one cause is told once. */
async function examine(edge: KnownEdge, destination: Destination | undefined): Promise<Check[]> {
  const { checkDns, checkEdge, checkProxy } = await import('../doctor/network.ts')
  const { checkPerson } = await import('../doctor/person.ts')
  const { checkSshConfig } = await import('../doctor/ssh-config.ts')
  const host = destination?.host ?? `any-service.${edge.domain}`
  const checks = [checkProxy(edge, process.env)]
  if (!hasFailed(checks)) checks.push(await checkDns(edge, host))
  if (!hasFailed(checks)) checks.push(...(await checkEdge(edge)))
  if (!hasFailed(checks)) checks.push(...(await checkPerson(edge, destination)))
  return [...checks, await checkSshConfig(host, edge.domain)]
}

function hasFailed(checks: readonly Check[]): boolean {
  return checks.some(({ state }) => state === 'fail')
}

function describe({ state, name, message, fix }: Check): string {
  const line = `${state.padEnd(4)}  ${name.padEnd(11)}  ${printable(message)}\n`
  return fix === undefined ? line : `${line}${' '.repeat(19)}→ ${printable(fix)}\n`
}

export function addDoctor(program: Command): void {
  const command = program
    .command('doctor')
    .description('look at everything a connection needs, and say what to do about what is wrong')
    .option('--host <host>', 'a service, LABEL.DOMAIN: get a certificate for it and open one flow')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
    .action(runDoctor)
  addExamples(command, [
    ['this machine and its edge', 'postern doctor'],
    ['the whole way to a service', 'postern doctor --host crimson-thunder-8434.edge.example.com'],
    ['for scripts: exit code 0 only when nothing failed', 'postern doctor --json'],
  ])
}
