import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Program } from '../../demo/program.ts'
import { type PosternOptions, posternEnv } from './postern.ts'
import { until } from './until.ts'

/** Another machine: a network namespace with a cable to this one. Needs root. `vanish` sends what either side says
 *  to a hardware address that nobody has: it is dropped without a FIN, a reset or an ICMP message. */
export interface FarMachine extends AsyncDisposable {
  /** This machine's address on the cable, which nobody else reaches. */
  address: string
  /** An address on the cable that nobody has: what is sent there is lost. */
  deadAddress: string
  /** What programs there that start from now on know names as, by name. */
  know(addresses: Readonly<Record<string, readonly string[]>>): void
  /** Here and there, `*.localhost` leads to an edge that listens on this port of `address`. */
  reach(edgePort: number): Promise<void>
  /** Runs a program there. */
  run(command: readonly string[], options: FarOptions): Program
  /** Resolves when it has acknowledged every byte that was sent there: while one is not, keepalive does not run. */
  acknowledged(): Promise<void>
  vanish(): void
}

export type FarOptions = Pick<PosternOptions, 'home' | 'env' | 'browser' | 'stdin' | 'collectStdout'>

const FORWARDER = fileURLToPath(new URL('./forward-to.ts', import.meta.url))
let count = 0

export function startFarMachine({ family = 4 }: { family?: 4 | 6 } = {}): FarMachine {
  if (process.getuid?.() !== 0) throw new Error('network namespaces need root: run this test as root')
  const id = `${process.pid % 100_000}${count++}`
  const name = `postern${id}`
  const [near, far] = [`pn${id}`, `pf${id}`]
  // one /30 of 198.18.0.0/15 each, the range for tests between networks (RFC 2544)
  const block = (Number(id) % 16_000) * 4
  const [prefix, prefixLength] =
    family === 4 ? [`198.18.${(block >> 8) & 255}.`, 30] : [`fd00:${block.toString(16)}::`, 64]
  const address = (host: number) => `${prefix}${family === 4 ? (block & 252) + host : host}`
  // the dead one is as near to the far one as can be, and so is tried first (RFC 6724)
  const [nearAddress, farAddress, deadAddress] = [address(1), address(2), address(3)]
  const hostsFolder = `/etc/netns/${name}` // ip shows its files to what it runs there
  const inside = (...args: string[]) => ip('-n', name, ...args)

  ip('netns', 'add', name)
  try {
    ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', name)
    ip('address', 'add', `${nearAddress}/${prefixLength}`, 'dev', near, ...(family === 6 ? ['nodad'] : []))
    ip('link', 'set', near, 'up')
    inside('address', 'add', `${farAddress}/${prefixLength}`, 'dev', far, ...(family === 6 ? ['nodad'] : []))
    inside('link', 'set', far, 'up')
    inside('link', 'set', 'lo', 'up')
  } catch (error) {
    ip('netns', 'delete', name)
    throw error
  }
  const programs: Program[] = []
  const start = (command: readonly string[], options: ConstructorParameters<typeof Program>[2]) => {
    const program = new Program('ip', ['netns', 'exec', name, ...command], options)
    programs.push(program)
    return program
  }
  const nobody = ['lladdr', '02:00:00:00:00:01', 'nud', 'permanent']
  return {
    address: nearAddress,
    deadAddress,
    know(addresses) {
      const lines = Object.entries(addresses).flatMap(([host, all]) => all.map((one) => `${one} ${host}\n`))
      mkdirSync(hostsFolder, { recursive: true })
      writeFileSync(path.join(hostsFolder, 'hosts'), `127.0.0.1 localhost\n${lines.join('')}`)
      if (family === 6) inside('neighbour', 'replace', deadAddress, ...nobody, 'dev', far)
    },
    async reach(edgePort) {
      const words = [FORWARDER, String(edgePort), nearAddress]
      const here = new Program(process.execPath, words, { stdin: '' })
      programs.push(here)
      await here.matches(/forwarding/)
      await start([process.execPath, ...words], { stdin: '' }).matches(/forwarding/)
    },
    run: (command, { stdin, collectStdout, ...postern }) =>
      start(command, {
        env: posternEnv(postern),
        ...(stdin === undefined ? {} : { stdin }),
        ...(collectStdout === undefined ? {} : { collectStdout }),
      }),
    async acknowledged() {
      const sendQueues = () =>
        run('ss', '-Htn', 'dst', farAddress)
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => line.split(/\s+/)[2])
      await until('all is acknowledged', () => sendQueues().every((bytes) => bytes === '0'))
    },
    vanish() {
      ip('neighbour', 'replace', farAddress, ...nobody, 'dev', near)
      inside('neighbour', 'replace', nearAddress, ...nobody, 'dev', far)
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(programs.map((program) => program.stop('SIGKILL')))
      ip('netns', 'delete', name) // and the cable with it
      rmSync(hostsFolder, { recursive: true, force: true })
    },
  }
}

function ip(...args: string[]): string {
  return run('ip', ...args)
}

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}
