import path from 'node:path'
import type { KnownEdge } from './known-edge.ts'
import { readStateFile, removeState, type ShapeValue, writeStateFile } from './state-file.ts'

/** One login at one edge. The tokens are bound to `dpopKey` (RFC 9449): stolen without it they are useless. */
const SESSION_SHAPE = {
  accessToken: 'string',
  /** Epoch milliseconds by the edge's clock, as the next two. */
  accessExpiresAt: 'number',
  refreshToken: 'string',
  expiresAt: 'number',
  email: 'string',
  /** Private JWK, P-256. */
  dpopKey: 'object',
} as const

export type Session = ShapeValue<typeof SESSION_SHAPE>

export function readSession(edge: Pick<KnownEdge, 'folder'>): Session | undefined {
  return readStateFile(sessionFile(edge), SESSION_SHAPE)
}

export function saveSession(edge: Pick<KnownEdge, 'folder'>, session: Session): void {
  writeStateFile(sessionFile(edge), session)
}

export function forgetSession(edge: Pick<KnownEdge, 'folder'>): void {
  removeState(sessionFile(edge))
}

function sessionFile(edge: Pick<KnownEdge, 'folder'>): string {
  return path.join(edge.folder, 'session.json')
}
