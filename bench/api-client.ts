import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import type { EdgeProcess } from '../test/support/edge-process.ts'
import { hashOf, type PeerSession, signInByHand, signJws } from '../test/support/oauth-peer.ts'

/** Calls to the edge's API as fast as one process makes them: kept connections, the nonce of the last answer. */
export class ApiClient implements Disposable {
  readonly #edge: EdgeProcess
  readonly #session: PeerSession
  readonly #agent: https.Agent
  #nonce: string | undefined

  private constructor(edge: EdgeProcess, session: PeerSession) {
    this.#edge = edge
    this.#session = session
    this.#agent = new https.Agent({ keepAlive: true, ca: readFileSync(edge.caFile), servername: edge.domain })
  }

  static async signIn(edge: EdgeProcess, email: string): Promise<ApiClient> {
    return new ApiClient(edge, await signInByHand(edge, email))
  }

  /** @throws what the edge answers when it is not a success */
  // biome-ignore lint/suspicious/noExplicitAny: whatever the edge says
  async post(path: string, body: object): Promise<any> {
    const first = await this.#send(path, body)
    const answer = first.status === 401 ? await this.#send(path, body) : first
    if (answer.status >= 300) throw new Error(`${path}: ${answer.status} ${answer.text}`)
    return JSON.parse(answer.text)
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }

  #send(path: string, body: object): Promise<{ status: number; text: string }> {
    const text = JSON.stringify(body)
    const headers = {
      host: new URL(this.#edge.origin).host,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      authorization: `DPoP ${this.#session.accessToken}`,
      dpop: this.#prove('POST', path),
    }
    const { port } = this.#edge
    return new Promise((resolve, reject) => {
      const request = https.request(
        { host: '127.0.0.1', port, path, method: 'POST', headers, agent: this.#agent },
        async (response) => {
          this.#nonce = String(response.headers['dpop-nonce'] ?? this.#nonce)
          let answer = ''
          for await (const chunk of response.setEncoding('utf8')) answer += chunk
          resolve({ status: response.statusCode ?? 0, text: answer })
        },
      )
      request.on('error', reject)
      request.end(text)
    })
  }

  /** RFC 9449. */
  #prove(htm: string, path: string): string {
    const { key, accessToken } = this.#session
    const claims = {
      jti: randomUUID(),
      htm,
      htu: this.#edge.origin + path,
      iat: Math.floor(Date.now() / 1_000),
      ath: hashOf(accessToken),
      ...(this.#nonce === undefined ? {} : { nonce: this.#nonce }),
    }
    return signJws(key, { typ: 'dpop+jwt' }, claims)
  }
}
