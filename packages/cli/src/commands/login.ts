import { formatDuration } from '@postern/shared/duration'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { EdgeApi } from '../api/edge-api.ts'
import { followCas } from '../credentials/edge-cas.ts'
import { callSignedIn, sessionLock, signInRequired, storeLogin } from '../credentials/fresh.ts'
import { edgeFolder, stateFolder } from '../credentials/home.ts'
import {
  loadEdge,
  loginLine,
  readRemembered,
  saveEdge,
  saveRemembered,
  withOrigin,
} from '../credentials/known-edge.ts'
import { printable, tell } from '../io.ts'
import { type NetworkOptions, useNetwork } from '../network/options.ts'
import { addBrowserOptions } from './ask.ts'
import { addCaOptions, type CaOptions, readCa } from './ca-options.ts'
import { addExamples } from './examples.ts'
import { addNetworkOptions } from './network-options.ts'
import { parseEdgeOrigin } from './options.ts'

/** `postern login`: the one way by which a person has this machine trust an edge. */

interface LoginOptions extends CaOptions, NetworkOptions {
  edge: string
  batch?: boolean
  browser?: string | boolean
}

async function runLogin(options: LoginOptions): Promise<void> {
  useNetwork(options)
  if (options.batch) return confirmSession(options.edge)
  const { learnEdge, signIn } = await import('../login/sign-in.ts')
  const home = stateFolder()
  const folder = edgeFolder(home, options.edge)
  const known = loadEdge(home, options.edge)?.caPem
  const caPem = await readCa(options.edge, options, known)
  using api = new EdgeApi({ origin: options.edge, caPem }, readRemembered({ folder }))
  const facts = await learnEdge(api, caPem)

  using _lock = await sessionLock({ folder })
  const browser = options.browser === true ? undefined : options.browser
  const session = await signIn(api, facts, { browser })
  const edge = saveEdge(home, facts)
  saveRemembered(edge, api.memory)
  storeLogin(edge, session)
  await followCas(edge, api)
  const left = formatDuration(session.expiresAt - api.now())
  tell(`signed in to ${edge.origin} as ${printable(session.email)}, for ${left}`)
}

/** `--batch`: nobody can be asked, so a session there is will do, and no other helps.
 *  @throws SIGN_IN_REQUIRED · SESSION_ENDED */
async function confirmSession(origin: string): Promise<void> {
  const edge = loadEdge(stateFolder(), origin)
  if (!edge) {
    const required = signInRequired({ origin })
    throw new PosternError(required.code, required.message, { hint: `sign in: ${loginLine(origin)}` })
  }
  await callSignedIn(edge, { mayAsk: false }, async (api, session) => {
    const { identity, session: live } = await api.getSession(session)
    const left = formatDuration(live.expiresAt - api.now())
    tell(`signed in to ${origin} as ${printable(identity.email)}, for ${left}`)
  })
}

export function addLogin(program: Command): void {
  const command = program
    .command('login')
    .description('sign in to an edge in the browser, and trust it from now on')
    .requiredOption('--edge <url>', 'the edge, https://HOST[:PORT]', parseEdgeOrigin)
  addCaOptions(command).option(
    '--batch',
    'ask nobody: only say whether there is a session, with exit code 4 when not',
  )
  addNetworkOptions(addBrowserOptions(command)).action((options: LoginOptions) =>
    runLogin(options).catch((error: unknown) => {
      throw withOrigin(error, options.edge)
    }),
  )
  addExamples(command, [
    ['sign in', 'postern login --edge https://edge.example.com'],
    ['an edge with its own CA', 'postern login --edge https://edge.example.com:8443 --ca-file edge-ca.pem'],
    [
      'the same, without the file',
      'postern login --edge https://edge.example.com:8443 --ca-fingerprint sha256:HEX',
    ],
    ['on a machine without a browser', 'postern login --edge https://edge.example.com --no-browser'],
    [
      'with another browser',
      "postern login --edge https://edge.example.com --browser 'firefox --private-window %s'",
    ],
  ])
}
