import { generateDpopKey } from '../src/api/dpop.ts'
import { edgeFolder } from '../src/credentials/home.ts'
import { type KnownEdge, saveEdge } from '../src/credentials/known-edge.ts'
import { type Session, saveSession } from '../src/credentials/session.ts'
import type { FakeEdge } from './fake-edge.ts'

/** The state of somebody who signed in to the fake edge, without the login. */
export function signedIn(home: string, fake: FakeEdge, change: Partial<Session> = {}): KnownEdge {
  const edge = knownEdge(home, fake)
  saveSession(edge, {
    accessToken: 'access-0',
    accessExpiresAt: Date.now() + 600_000,
    refreshToken: 'refresh-0',
    expiresAt: Date.now() + 3_600_000,
    email: 'dev@mycorp.com',
    dpopKey: generateDpopKey() as Record<string, unknown>,
    ...change,
  })
  return edge
}

export function knownEdge(home: string, fake: FakeEdge): KnownEdge {
  const facts = {
    origin: fake.origin,
    domain: fake.domain,
    issuer: fake.origin,
    clientId: 'postern-cli',
    tokenEndpoint: `${fake.origin}/oauth/token`,
    caPem: fake.ca.certificatePem,
  }
  saveEdge(home, facts)
  return { ...facts, folder: edgeFolder(home, fake.origin) }
}
