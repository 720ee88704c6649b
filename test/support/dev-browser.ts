import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { quoteForShell, writeDevBrowser } from '../../demo/dev-login.ts'
import type { ProgramResult } from '../../demo/program.ts'
import type { EdgeProcess } from './edge-process.ts'
import { runPostern } from './postern.ts'
import { makeTempFolder } from './temp-folder.ts'

/** What a person is told to trust: an edge and its CA. */
export type EdgeAddress = Pick<EdgeProcess, 'origin' | 'caFile'>

/** Writes an executable into `home` that signs in as `email` without a screen: for `--browser`, `$BROWSER` and the
 *  `browser` of `runPostern`. Works at the dev page and at the page of upstream-provider.ts. */
export async function makeDevBrowser(edge: EdgeAddress, home: string, email: string): Promise<string> {
  mkdirSync(home, { recursive: true, mode: 0o700 })
  return writeDevBrowser(path.join(home, 'browser'), { email, caFile: edge.caFile })
}

/** Runs `postern login` for this person, and returns its result whatever it is.
 *  @param program another build of `postern` */
export async function tryLogIn(
  edge: EdgeAddress,
  home: string,
  email: string,
  program?: string,
): Promise<ProgramResult> {
  const browser = await makeDevBrowser(edge, home, email)
  const args = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--browser', quoteForShell(browser)]
  return runPostern(args, { home, ...(program ? { program } : {}) })
}

/** Signs this person in. */
export async function logIn(edge: EdgeAddress, home: string, email: string): Promise<void> {
  const result = await tryLogIn(edge, home, email)
  assert.equal(result.code, 0, `postern login failed\n${result.stderr}${result.stdout}`)
}

/** A state folder of somebody who is signed in. */
export async function makePerson(edge: EdgeAddress, email: string): Promise<string> {
  const home = makeTempFolder('home')
  await logIn(edge, home, email)
  return home
}
