import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import {
  type PrivateSshd,
  proxyCommandOf,
  startPrivateSshd,
  writeSshConfig,
} from '../../demo/private-sshd.ts'
import { Program } from '../../demo/program.ts'
import { connectService } from '../../test/support/connect-service.ts'
import { POSTERN, posternEnv } from '../../test/support/postern.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { openPath } from '../path.ts'
import { Figures, type Measured, type Row } from '../row.ts'

const ROUNDS_PER_ROUND = 4

/** `ssh HOST true`, with a key, straight and through the ProxyCommand. */
export const sshStart: Row = {
  id: 'P9',
  title: '`ssh HOST true` through the ProxyCommand',
  needs: ['ssh', 'sshd', 'ssh-keygen', 'openssl'],
  async run(scale, say): Promise<Measured> {
    await using opened = new AsyncDisposableStack()
    const { home } = opened.use(await openPath())
    const sshd = opened.use(await startPrivateSshd(makeTempFolder('sshd')))
    const service = opened.use(await connectService({ home, port: sshd.port, name: 'ssh' }))
    const ssh = writeWays(sshd, service.host)
    const figures = new Figures()
    await ssh.proxy(home) // has the certificate ready
    await ssh.matched(home)
    const rounds = scale.rounds * (scale.quick ? 1 : ROUNDS_PER_ROUND)
    for (let round = 0; round < rounds; round++) {
      if (round % ROUNDS_PER_ROUND === 0) say(`round ${round + 1} of ${rounds}`)
      figures.add('plain ssh', 'ms', await ssh.plain(home))
      figures.add('with ProxyCommand', 'ms', await ssh.proxy(home))
      figures.add('with ProxyCommand and Match exec', 'ms', await ssh.matched(home))
    }
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'added by the ProxyCommand, warm',
          value: figures.median('with ProxyCommand') - figures.median('plain ssh'),
          unit: 'ms',
          relation: 'at most',
          limit: 80,
        },
      ],
      notes: [
        '`Match exec` starts a second Node before the first: what `postern ssh-config --install` has ssh do.',
      ],
    }
  },
}

/** Each logs in once. @returns milliseconds */
function writeWays(sshd: PrivateSshd, host: string) {
  const file = path.join(makeTempFolder('ssh'), 'config')
  const postern = [process.execPath, POSTERN, 'client']
  writeSshConfig({ file, host, sshd, proxyCommand: proxyCommandOf([...postern, 'tls', '--host', '%h']) })
  const matched = `${file}-matched`
  const exec = proxyCommandOf([...postern, 'ssh-keysign', '--host', '%h'])
  const quoted = exec.replaceAll('"', '\\"')
  writeFileSync(matched, `Match host ${host} exec "${quoted}"\n\n${readFileSync(file, 'utf8')}`, {
    mode: 0o600,
  })
  const straight = ['-o', 'ProxyCommand=none', '-o', 'HostName=127.0.0.1', '-o', `HostKeyAlias=${host}`]
  return {
    plain: (home: string) => logIn(home, ['-F', file, ...straight, '-p', String(sshd.port), host]),
    proxy: (home: string) => logIn(home, ['-F', file, host]),
    matched: (home: string) => logIn(home, ['-F', matched, host]),
  }
}

async function logIn(home: string, args: readonly string[]): Promise<number> {
  const started = performance.now()
  const { code, stderr } = await new Program('ssh', [...args, 'true'], {
    env: posternEnv({ home }),
    stdin: '',
  }).ended
  if (code !== 0) throw new Error(`ssh failed\n${stderr}`)
  return performance.now() - started
}
