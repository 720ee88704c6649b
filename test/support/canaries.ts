import assert from 'node:assert/strict'
import { readStoredSession } from './stored-session.ts'

/** Secrets of one test run, and every place where none of them may ever be read: output of programs, logs, pages,
 *  addresses that leave the machine. */
export class Canaries {
  readonly #secrets = new Map<string, string>()

  /** @param name says what it is, when it is found somewhere */
  add(name: string, secret: string): void {
    assert.ok(secret.length >= 16, `${name} is too short to be found for certain`)
    this.#secrets.set(name, secret)
  }

  /** Everything secret that a person's postern keeps. */
  addSession(home: string): void {
    const { accessToken, refreshToken, dpopKey } = readStoredSession(home)
    this.add('access token', accessToken)
    this.add('refresh token', refreshToken)
    this.add('private key', dpopKey.d!)
  }

  /** @throws naming the secret and the place, not repeating the secret */
  assertNoneIn(place: string, text: string): void {
    assert.ok(this.#secrets.size > 0, 'there is nothing to look for')
    for (const [name, secret] of this.#secrets) {
      for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64url')]) {
        assert.ok(!text.includes(form), `${name} stands in ${place}`)
      }
    }
  }
}
