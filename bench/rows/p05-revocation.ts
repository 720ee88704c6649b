import { connectService } from '../../test/support/connect-service.ts'
import { logIn } from '../../test/support/dev-browser.ts'
import { runPostern } from '../../test/support/postern.ts'
import { makeTempFolder } from '../../test/support/temp-folder.ts'
import { entranceOf, openFlows } from '../client-flow.ts'
import { obtainCertificate, openPath, type Path } from '../path.ts'
import { Figures, type Measured, type Row } from '../row.ts'
import { percentile } from '../statistics.ts'

const EMAIL = 'leaver@mycorp.com'
const MAX_ROUNDS = 3

/** A person is taken away with many live flows: until the client's end of each of them hears of it. */
export const revocation: Row = {
  id: 'P5',
  title: 'revocation of a person with live flows',
  needs: ['openssl'],
  openFiles: 3_000,
  async run(scale, say): Promise<Measured> {
    const count = scale.quick ? 20 : 1_000
    const rounds = Math.min(scale.rounds, MAX_ROUNDS)
    await using path = await openPath()
    await using idle = await connectService({ home: path.home, port: path.service.port, name: 'untouched' })
    const stays = entranceOf(path.edge, idle.host, await obtainCertificate(path.home, idle))
    const [untouched] = await openFlows(stays, 1)
    const home = makeTempFolder('leaver')
    const figures = new Figures()
    for (let round = 0; round < rounds; round++) {
      say(`round ${round + 1} of ${rounds}: ${count} flows`)
      const delays = await revokeOnce(path, home, count)
      figures.add('p50', 'ms', percentile(delays, 0.5))
      figures.add('p99', 'ms', percentile(delays, 0.99))
      figures.add('last', 'ms', Math.max(...delays))
    }
    await untouched!.ping() // somebody else's flow goes on
    return {
      figures: figures.all(),
      goals: [
        {
          text: 'p99 of the flows',
          value: figures.median('p99'),
          unit: 'ms',
          relation: 'at most',
          limit: 1_000,
        },
      ],
      notes: [`${count} flows of one person; counted from the moment that the edge's receipt names.`],
    }
  },
}

/** @returns milliseconds from the change to the cut, of every flow */
async function revokeOnce(path: Path, home: string, count: number): Promise<number[]> {
  await logIn(path.edge, home, EMAIL)
  const label = path.host.slice(0, path.host.indexOf('.'))
  const identity = await obtainCertificate(home, { host: path.host, label })
  const flows = await openFlows(entranceOf(path.edge, path.host, identity), count)
  const cuts = flows.map(async ({ over }) => {
    const reason = await over
    if (reason?.code !== 'FLOW_REVOKED') throw new Error(`a flow ended with ${reason?.code}`)
    return Date.now()
  })
  const revoke = ['revoke', '--identity', EMAIL, '--json']
  const { code, stdout, stderr } = await runPostern(revoke, { home: path.home })
  if (code !== 0) throw new Error(stderr)
  const changedAt = Math.min(...(Object.values(JSON.parse(stdout).at) as number[]))
  return (await Promise.all(cuts)).map((cutAt) => cutAt - changedAt)
}
