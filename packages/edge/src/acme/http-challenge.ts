import type { Logger } from '@postern/shared/logger'
import { openPlainListener } from '../plain-listener.ts'
import type { ChallengeSolver } from './challenges.ts'
import type { SharedProofs } from './shared-proofs.ts'

const FOLDER = '/.well-known/acme-challenge/'

/** HTTP-01 (RFC 8555 §8.3): answers on a port of its own, 80 for a public CA, with the proofs that are asked for now and
 *  with 404 for everything else, also when another edge of the store has asked for them. It stays open in between, so that a port that is taken shows at the start.
 *  @throws CONFIG_INVALID the address cannot be listened on */
export async function openHttpChallenge(
  address: { host: string; port: number },
  fleet?: { shared: SharedProofs; log: Logger },
): Promise<ChallengeSolver> {
  const answers = new Map<string, string>()
  const findForeign = async (token: string) => {
    const proof = await fleet?.shared.find({ token })
    if (proof) fleet?.log.info('acme.vouches_for_another_edge', { name: proof.name, challenge: 'http-01' })
    return proof?.keyAuthorization
  }
  const listener = await openPlainListener(address, {
    what: 'the HTTP-01 challenge',
    key: 'tls.acme.http_listen',
    async answer({ method, url = '' }, response) {
      const token = method === 'GET' && url.startsWith(FOLDER) ? url.slice(FOLDER.length) : undefined
      const answer = token === undefined ? undefined : (answers.get(token) ?? (await findForeign(token)))
      if (answer === undefined) return void response.writeHead(404).end()
      response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(answer)
    },
  })
  return {
    type: 'http-01',
    async present({ token, keyAuthorization }) {
      answers.set(token, keyAuthorization)
      return { [Symbol.asyncDispose]: async () => void answers.delete(token) }
    },
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  }
}
