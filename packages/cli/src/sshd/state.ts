import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import * as v from 'valibot'
import { writeStateFile } from '../credentials/state-file.ts'
import type { SshdLayout } from './drop-in.ts'

/** What `setup` has done to this machine: enough to take it back byte for byte, and to keep it up to date. Lies
 *  in our folder beside sshd_config, readable by root alone, and is written before anything is changed. */

/** A file outside of our folder. */
const ChangedFile = v.object({
  file: v.string(),
  /** What it held, in base64; null when it was not there. */
  before: v.nullable(v.string()),
  /** What we wrote, in base64. */
  written: v.string(),
  mode: v.number(),
  uid: v.number(),
  gid: v.number(),
})

/** See known-authorities.ts. */
const Known = v.object({
  believed: v.pipe(
    v.array(v.object({ ca: v.string(), signsFrom: v.number(), trustedUntil: v.nullable(v.number()) })),
    v.minLength(1),
    v.readonly(),
  ),
  dropped: v.pipe(v.array(v.string()), v.readonly()),
})

const SetupState = v.object({
  serviceHost: v.string(),
  /** The one that signs: all that versions know of which a CA was for good. */
  userCa: v.string(),
  /** Likewise; absent where the edge gives no certificates to servers. */
  hostCa: v.optional(v.string()),
  /** All that are believed; absent after a setup by such a version. */
  userCas: v.optional(Known),
  hostCas: v.optional(Known),
  users: v.array(v.string()),
  edge: v.object({ origin: v.string(), domain: v.string(), caPem: v.optional(v.string()) }),
  /** Where the connector keeps its certificate. */
  edgeFolder: v.string(),
  scheduler: v.picklist(['systemd', 'cron', 'none']),
  sshd: v.string(),
  configFile: v.string(),
  dropInFile: v.string(),
  reloadCommand: v.optional(v.string()),
  files: v.array(ChangedFile),
  /** Epoch milliseconds; from then on whoever comes by takes it back, unless it was confirmed. */
  confirmBy: v.number(),
  confirmed: v.boolean(),
})

export type ChangedFile = v.InferOutput<typeof ChangedFile>
export type SetupState = v.InferOutput<typeof SetupState>

/** @returns undefined when sshd was not set up here
 *  @throws STATE_INVALID */
export function readState(layout: SshdLayout): SetupState | undefined {
  const file = stateFile(layout)
  if (!existsSync(file)) return undefined
  try {
    return v.parse(SetupState, JSON.parse(readFileSync(file, 'utf8')))
  } catch (cause) {
    throw new PosternError('STATE_INVALID', `${file} cannot be read: ${(cause as Error).message}`, {
      cause,
      hint: 'run it as root; where the file is damaged, take the lines of postern out of sshd_config by hand',
    })
  }
}

/** @throws SSHD_SETUP_FAILED */
export function requireState(layout: SshdLayout): SetupState {
  const state = readState(layout)
  if (state) return state
  throw new PosternError('SSHD_SETUP_FAILED', `sshd is not set up in ${path.dirname(layout.folder)}`, {
    hint: 'set it up: postern sshd setup --host HOST --user USER',
  })
}

export function writeState(layout: SshdLayout, state: SetupState): void {
  writeStateFile(stateFile(layout), state)
}

function stateFile(layout: SshdLayout): string {
  return path.join(layout.folder, 'state.json')
}
