import { spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createCsr } from '@postern/shared/certs/csr'
import { makeProof, type PeerSession, requestEdge, signInByHand } from '../../test/support/oauth-peer.ts'
import { POSTERN, posternEnv } from '../../test/support/postern.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { openPath, type Path } from '../path.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { ECHO_ONE } from '../service.ts'

const ROUNDS_PER_ROUND = 5

/** From the start of the program to the first byte of the service. */
export const firstByte: Row = {
  id: 'P2',
  title: 'start of `postern client tls` to the first byte of the service',
  needs: ['openssl'],
  async run(scale, say): Promise<Measured> {
    await using way = await openPath()
    const { home, host, edge } = way
    const client = [POSTERN, 'client', 'tls', '--host', host]
    const minimal = [writeMinimalScript(way)]
    const session = await signInByHand(edge, 'operator@mycorp.com')
    const figures = new Figures()
    const rounds = scale.rounds * (scale.quick ? 1 : ROUNDS_PER_ROUND)
    for (let round = 0; round < rounds; round++) {
      if (round % ROUNDS_PER_ROUND === 0) say(`round ${round + 1} of ${rounds}`)
      figures.add('minimal script', 'ms', await timeToFirstByte(minimal, home))
      figures.add('postern, warm', 'ms', await timeToFirstByte(client, home))
      runOutCertificate(home)
      figures.add('postern, certificate run out', 'ms', await timeToFirstByte(client, home))
      figures.add('key and API round trip', 'ms', await timeCertificate(way, session))
    }
    const of = (name: string) => figures.median(name)
    const limit = 1.25
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'warm, against a minimal script with one mTLS connect',
          value: of('postern, warm') / of('minimal script'),
          unit: '×',
          relation: 'at most',
          limit,
        },
        {
          text: `certificate run out, against ${limit} minimal scripts, a new key and one API round trip`,
          value:
            of('postern, certificate run out') /
            (limit * of('minimal script') + of('key and API round trip')),
          unit: '×',
          relation: 'at most',
          limit: 1,
        },
      ],
    }
  },
}

/** Milliseconds from the start of node to the first byte that it prints. */
async function timeToFirstByte(args: readonly string[], home: string): Promise<number> {
  const started = performance.now()
  const child = spawn(process.execPath, args, {
    env: posternEnv({ home }),
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.on('error', () => {})
  child.stdin.write(ECHO_ONE)
  await once(child.stdout, 'data')
  const took = performance.now() - started
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
  return took
}

/** One mTLS connect and nothing else, to the same edge and service. */
function writeMinimalScript({ edge, host, identity }: Path): string {
  const file = path.join(makeTempFolder('minimal'), 'minimal.mjs')
  const ca = readFileSync(edge.caFile, 'utf8')
  const options = JSON.stringify({ host: '127.0.0.1', port: edge.port, servername: host, ca, ...identity })
  writeFileSync(
    file,
    `import tls from 'node:tls'
const socket = tls.connect(${options})
process.stdin.pipe(socket).pipe(process.stdout)
`,
  )
  return file
}

function runOutCertificate(home: string): void {
  const [file] = globSync(path.join(home, 'edges', '*', 'certificates', '*.json'))
  writeFileSync(file!, JSON.stringify({ ...JSON.parse(readFileSync(file!, 'utf8')), notAfter: Date.now() }))
}

/** A new key, its proof, and one request on a connection of its own: what a certificate costs at the least. */
async function timeCertificate({ edge, host }: Path, { key, accessToken }: PeerSession): Promise<number> {
  const target = '/v1/certificates/client'
  const dpop = await makeProof(edge, key, { method: 'POST', path: target, token: accessToken })
  const headers = { authorization: `DPoP ${accessToken}`, dpop }
  const started = performance.now()
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const answer = await requestEdge(edge, {
    path: target,
    headers,
    body: { host, csr: createCsr(privateKey) },
  })
  if (answer.status !== 201) throw new Error(answer.text)
  return performance.now() - started
}
