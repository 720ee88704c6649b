import type { SecureContext } from 'node:tls'

/** How it is shown that a name is the edge's. */
export type ChallengeType = 'tls-alpn-01' | 'http-01' | 'dns-01'

export interface Proof {
  /** Without `*.`. */
  name: string
  token: string
  keyAuthorization: string
}

export interface ChallengeSolver extends AsyncDisposable {
  readonly type: ChallengeType
  /** Puts the proof where the server looks for it, until it is disposed.
   *  @throws ACME_HOOK_FAILED */
  present(proof: Proof, signal: AbortSignal): Promise<AsyncDisposable>
}

/** What a CA's server is shown on the edge's own port that looks whether a name is the edge's. */
export interface AlpnAnswers {
  /** Whether anybody may come for this name now. */
  isExpected(serverName: string): boolean
  /** What is shown for this name now; undefined: nothing. Never rejects. */
  contextFor(serverName: string): Promise<SecureContext | undefined>
}
