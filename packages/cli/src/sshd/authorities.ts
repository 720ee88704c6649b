import { readFileSync } from 'node:fs'
import type { SshAuthoritiesResponse } from '@postern/shared/api/ssh'
import { PosternError } from '@postern/shared/errors'
import { EdgeApi } from '../api/edge-api.ts'
import { type KnownEdge, readRemembered } from '../credentials/known-edge.ts'
import { writePublicFile } from './change-file.ts'
import type { SshdLayout } from './drop-in.ts'
import {
  type KnownAuthorities,
  knownFrom,
  learnAuthorities,
  linesOf,
  signingOf,
  withoutEnded,
} from './known-authorities.ts'
import { type SetupState, writeState } from './state.ts'

/** The ssh CAs that a server believes, of both kinds: as its state keeps them, as the edge tells them, and as sshd reads
 *  them. */
export interface ServerCas {
  userCas: KnownAuthorities
  /** Absent where the edge gives no certificates to servers. */
  hostCas?: KnownAuthorities
}

export function casOf({ userCa, userCas, hostCa, hostCas }: SetupState): ServerCas {
  const hosts = hostCas ?? (hostCa === undefined ? undefined : knownFrom([hostCa]))
  return { userCas: userCas ?? knownFrom([userCa]), ...(hosts ? { hostCas: hosts } : {}) }
}

export function withoutEndedCas({ userCas, hostCas }: ServerCas, now: number): ServerCas {
  return {
    userCas: withoutEnded(userCas, now),
    ...(hostCas ? { hostCas: withoutEnded(hostCas, now) } : {}),
  }
}

/** Only those of users that were known before: what goes, without what comes. */
export function withoutNewCas({ userCas, ...rest }: ServerCas, known: ServerCas): ServerCas {
  const lines = linesOf(known.userCas)
  const believed = userCas.believed.filter(({ ca }) => lines.includes(ca))
  return { ...rest, userCas: { ...userCas, believed } }
}

/** Asks the edge which there are now. One of before CAs were replaced has one of each.
 *  @returns problem: of a kind nothing was learned, and the server goes on with what it knows */
export async function learnCas(
  known: ServerCas,
  edge: KnownEdge,
): Promise<{ cas: ServerCas; problem?: PosternError }> {
  // keeps nothing: this runs as root, and files of root in the connector's folder would be in its way
  using api = new EdgeApi(edge, readRemembered(edge))
  const lists = await askForLists(api)
  if (!lists) return { cas: known }
  const expected = { domain: edge.domain, now: api.now() }
  let problem: PosternError | undefined
  const learn = (kind: 'user' | 'host', before: KnownAuthorities) => {
    try {
      return learnAuthorities(before, lists[kind], { ...expected, kind })
    } catch (error) {
      if (!(error instanceof PosternError) || error.code !== 'SSH_CA_UNKNOWN') throw error
      problem ??= error
      return before
    }
  }
  const { hostCas } = known
  const cas = {
    userCas: learn('user', known.userCas),
    ...(hostCas ? { hostCas: learn('host', hostCas) } : {}),
  }
  return { cas, ...(problem ? { problem } : {}) }
}

async function askForLists(api: EdgeApi): Promise<SshAuthoritiesResponse | undefined> {
  try {
    return await api.getSshAuthorities()
  } catch (error) {
    if (error instanceof PosternError && error.code === 'NOT_FOUND') return undefined
    throw error
  }
}

export function signingCasOf(
  { userCas, hostCas }: ServerCas,
  now: number,
): Pick<SetupState, 'userCa' | 'hostCa'> {
  return {
    userCa: signingOf(userCas, now).ca,
    ...(hostCas ? { hostCa: signingOf(hostCas, now).ca } : {}),
  }
}

/** What stands in `TrustedUserCAKeys`. */
export function userCasText(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join('')
}

/** sshd reads the file anew for each login. The state is first: what is written there becomes true in the end. */
export function installCas(
  layout: SshdLayout,
  state: SetupState,
  { cas, now }: { cas: ServerCas; now: number },
): SetupState {
  const after = { ...state, ...cas, ...signingCasOf(cas, now) }
  if (JSON.stringify(after) !== JSON.stringify(state)) writeState(layout, after)
  const text = userCasText(linesOf(cas.userCas))
  if (readIfThere(layout.userCaFile) !== text) writePublicFile(layout.userCaFile, text)
  return after
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
