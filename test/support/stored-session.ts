import assert from 'node:assert/strict'
import { cpSync, existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { runPostern } from './postern.ts'
import { makeTempFolder } from './temp-folder.ts'

/** The session a person's postern keeps, as somebody sees it who can read the person's files. */

export interface StoredSession {
  accessToken: string
  accessExpiresAt: number
  refreshToken: string
  expiresAt: number
  email: string
  dpopKey: Record<string, string>
}

function sessionFile(home: string): string {
  const [folder = ''] = globSync(path.join(home, 'edges', '*'))
  return path.join(folder, 'session.json')
}

export function hasSession(home: string): boolean {
  return existsSync(sessionFile(home))
}

export function readStoredSession(home: string): StoredSession {
  return JSON.parse(readFileSync(sessionFile(home), 'utf8')) as StoredSession
}

export function changeStoredSession(home: string, change: Partial<StoredSession>): void {
  writeFileSync(sessionFile(home), JSON.stringify({ ...readStoredSession(home), ...change }))
}

/** The session is over at the edge, and this machine does not know yet. */
export async function endSessionUnnoticed(home: string): Promise<void> {
  const file = sessionFile(home)
  const session = readFileSync(file)
  assert.equal((await runPostern(['logout'], { home })).code, 0)
  writeFileSync(file, session, { mode: 0o600 })
}

/** Another folder with the same files: what a thief, or a backup, has. */
export function copyHome(home: string): string {
  const copy = makeTempFolder('home')
  cpSync(home, copy, { recursive: true })
  return copy
}

/** How many access tokens the edge has given out, for logins and refreshes together. */
export function countAccessTokens(edge: { dataDir: string }): number {
  const database = new DatabaseSync(path.join(edge.dataDir, 'edge.sqlite'), {
    readOnly: true,
    timeout: 10_000,
  })
  try {
    const sql = "select count(*) as count from oidc_records where model = 'AccessToken'"
    return Number(database.prepare(sql).get()?.count)
  } finally {
    database.close()
  }
}
