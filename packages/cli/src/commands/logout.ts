import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { forgetCertificates } from '../credentials/cache.ts'
import { callSignedIn, sessionLock } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { type KnownEdge, listEdges, pickEdge } from '../credentials/known-edge.ts'
import { forgetSession, readSession } from '../credentials/session.ts'
import { tell, tellMore } from '../io.ts'
import { forgetAgentKeys } from '../ssh/agent-key.ts'
import { forgetSshKeys } from '../ssh/key-files.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'

/** `postern logout`: ends the session at the edge and forgets tokens and certificates. The edge and its CA stay
 *  known; connectors live on their own certificates and go on. */

async function runLogout(options: { edge?: string; all?: boolean }): Promise<void> {
  const home = stateFolder()
  const edges = options.all ? listEdges(home) : [pickEdge(home, options.edge)]
  for (const edge of edges) await logOut(edge)
}

async function logOut(edge: KnownEdge): Promise<void> {
  if (!readSession(edge)) {
    await forgetIssued(edge)
    return tell(`you were not signed in to ${edge.origin}`)
  }
  const failure = await endSession(edge)
  using _lock = await sessionLock(edge)
  forgetSession(edge)
  await forgetIssued(edge)
  tell(`signed out of ${edge.origin}`)
  if (failure) {
    tellMore(`this machine has forgotten the session, but could not tell the edge: ${failure.message}`)
    tellMore('there it ends by itself at its time, or an administrator ends it')
  }
}

async function forgetIssued(edge: KnownEdge): Promise<void> {
  forgetCertificates(edge)
  forgetSshKeys(edge)
  await forgetAgentKeys(edge)
}

/** @returns why the edge could not be told; a session that had already ended is no failure */
async function endSession(edge: KnownEdge): Promise<PosternError | undefined> {
  try {
    await callSignedIn(edge, { mayAsk: false }, (api, session) => api.endSession(session))
    return undefined
  } catch (error) {
    if (!(error instanceof PosternError)) throw error
    const over = error.code === 'SESSION_ENDED' || error.code === 'SIGN_IN_REQUIRED'
    return over ? undefined : error
  }
}

export function addLogout(program: Command): void {
  const command = program
    .command('logout')
    .description('end the session and forget its tokens and certificates; the edge stays known')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--all', 'sign out of every edge')
    .action(runLogout)
  addExamples(command, [['sign out', 'postern logout']])
}
