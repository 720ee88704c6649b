import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { type BrowserContext, chromium, type Page } from 'playwright-core'
import { makeTempFolder } from './temp-folder.ts'

/** Debian's Chromium without a screen. The edge's CA is imported into a profile of its own, so the browser checks
 *  certificates as any person's does. */

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export interface Chromium extends AsyncDisposable {
  context: BrowserContext
  newPage(): Promise<Page>
}

/** @param caFile trusted in addition to what Chromium trusts anyway */
export async function startChromium({ caFile }: { caFile?: string } = {}): Promise<Chromium> {
  const home = makeTempFolder('chromium')
  if (caFile) trustCa(home, caFile)
  const context = await chromium.launchPersistentContext(path.join(home, 'profile'), {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: FLAGS,
    env: { PATH: process.env.PATH ?? '', HOME: home, LANG: 'C.UTF-8' },
  })
  return {
    context,
    newPage: () => context.newPage(),
    [Symbol.asyncDispose]: () => context.close(),
  }
}

/** Chromium on Linux reads the person's own NSS database. */
function trustCa(home: string, caFile: string): void {
  const database = path.join(home, '.pki', 'nssdb')
  mkdirSync(database, { recursive: true, mode: 0o700 })
  const certutil = (...args: string[]) => execFileSync('certutil', ['-d', `sql:${database}`, ...args])
  certutil('-N', '--empty-password')
  certutil('-A', '-n', 'edge', '-t', 'C,,', '-i', caFile)
}
