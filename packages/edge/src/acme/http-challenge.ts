import { openPlainListener } from '../plain-listener.ts'
import type { ChallengeSolver } from './challenges.ts'

/** HTTP-01 (RFC 8555 §8.3): answers on a port of its own, 80 for a public CA, with the proofs that are asked for now and
 *  with 404 for everything else. It stays open in between, so that a port that is taken shows at the start.
 *  @throws CONFIG_INVALID the address cannot be listened on */
export async function openHttpChallenge(address: { host: string; port: number }): Promise<ChallengeSolver> {
  const answers = new Map<string, string>()
  const listener = await openPlainListener(address, {
    what: 'the HTTP-01 challenge',
    key: 'tls.acme.http_listen',
    answer(request, response) {
      const answer = request.method === 'GET' ? answers.get(request.url ?? '') : undefined
      if (answer === undefined) return void response.writeHead(404).end()
      response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(answer)
    },
  })
  return {
    type: 'http-01',
    async present({ token, keyAuthorization }) {
      const path = `/.well-known/acme-challenge/${token}`
      answers.set(path, keyAuthorization)
      return { [Symbol.asyncDispose]: async () => void answers.delete(path) }
    },
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  }
}
