import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import path from 'node:path'
import { Program } from '../../demo/program.ts'
import { makeTempFolder } from './temp-folder.ts'
import { until } from './until.ts'

/** Debian's haproxy with this configuration, once it listens.
 *  @param ports that it listens on */
export async function startHaproxy(configuration: string, ports: readonly number[]): Promise<Program> {
  const file = path.join(makeTempFolder('haproxy'), 'haproxy.cfg')
  writeFileSync(
    file,
    `global
  nbthread 1
defaults
  timeout connect 30s
  timeout client 5m
  timeout server 5m
${configuration}`,
  )
  const program = new Program('haproxy', ['-db', '-f', file], {
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  })
  for (const port of ports) {
    await until(`haproxy listens on ${port}\n${program.logs()}`, () => answers(port))
  }
  return program
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
