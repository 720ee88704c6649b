import { generateKeyPairSync, type JsonWebKey } from 'node:crypto'
import path from 'node:path'
import { type FlowIdentityKey, flowIdentityJwk } from '@postern/shared/proxy-protocol/flow-identity'
import { loadEd25519Key, openEd25519Key } from '../ed25519-key.ts'
import { type Generation, type GenerationsByKind, generationsOf, readGenerations } from './generations.ts'
import { encodeKey, type KeyLock } from './key-file.ts'
import type { LiveAuthoritiesParts } from './live-authorities.ts'
import { LiveGenerations } from './live-generations.ts'
import { writeWhole } from './ssh-authorities.ts'

/** Its kind among the generations of all keys. */
export const FLOW_IDENTITY = 'flow-identity'
export type FlowIdentityKind = typeof FLOW_IDENTITY

/** Signs who is at the other end of a flow, for services that ask, and nothing else. It lies with the authorities, so that
 *  it is copied with them to other edges and into backups, and takes over from the one before as they do: services are
 *  shown the next one before it signs. */
export class FlowIdentityKeys implements Disposable {
  readonly #live: LiveGenerations<FlowIdentityKind, FlowIdentityKey>

  private constructor(live: LiveGenerations<FlowIdentityKind, FlowIdentityKey>) {
    this.#live = live
  }

  /** Makes the first one where there is none yet.
   *  @throws CONFIG_INVALID · CA_KEY_LOCKED · STATE_INVALID */
  static async open(dataDir: string, { lock, clock, log }: LiveAuthoritiesParts): Promise<FlowIdentityKeys> {
    await makeFirst(dataDir, lock)
    const load = (_kind: FlowIdentityKind, name: string) => loadFlowIdentityKey(dataDir, { name, lock })
    const live = new LiveGenerations(dataDir, { kinds: [FLOW_IDENTITY], load, clock, log })
    return new FlowIdentityKeys(await live.start())
  }

  get signing(): FlowIdentityKey {
    return this.#live.signing(FLOW_IDENTITY)
  }

  /** Public halves of all that services may meet, oldest first: one that signs later is there before. */
  jwks(): (JsonWebKey & { kid: string })[] {
    return this.#live.trusted(FLOW_IDENTITY).map(({ authority }) => flowIdentityJwk(authority.key))
  }

  /** The same with their dates, named by their ids. */
  dated(): Generation[] {
    return this.#live.dated(FLOW_IDENTITY, ({ id }) => id)
  }

  [Symbol.dispose](): void {
    this.#live[Symbol.dispose]()
  }
}

/** Those that services may meet at `now`, oldest first, read from the files. Makes the first one where there is none yet.
 *  @throws as `FlowIdentityKeys.open` */
export async function readFlowIdentityKeys(
  dataDir: string,
  lock: KeyLock | undefined,
  now: number,
): Promise<FlowIdentityKey[]> {
  const kinds = await makeFirst(dataDir, lock)
  const trusted = generationsOf(kinds, FLOW_IDENTITY).trusted(now)
  return Promise.all(trusted.map(({ name }) => loadFlowIdentityKey(dataDir, { name, lock })))
}

async function makeFirst(dataDir: string, lock: KeyLock | undefined): Promise<GenerationsByKind> {
  const kinds = await readGenerations(dataDir)
  if (!kinds.has(FLOW_IDENTITY)) await openEd25519Key(keyFile(dataDir, FLOW_IDENTITY), ABOUT, lock)
  return kinds
}

/** Makes one more, beside those that there are. Nobody uses it before a generation names it.
 *  @returns the name of its file */
export async function addFlowIdentityKey(dataDir: string, lock: KeyLock | undefined): Promise<string> {
  const { privateKey } = generateKeyPairSync('ed25519')
  const id = Buffer.from(flowIdentityJwk(privateKey).kid, 'base64url').toString('hex').slice(0, 8)
  const name = `${FLOW_IDENTITY}-${id}`
  await writeWhole(keyFile(dataDir, name), encodeKey(privateKey, lock))
  return name
}

/** @param name of its file */
export async function loadFlowIdentityKey(
  dataDir: string,
  { name, lock }: { name: string; lock: KeyLock | undefined },
): Promise<FlowIdentityKey> {
  const key = await loadEd25519Key(keyFile(dataDir, name), ABOUT, lock)
  return { id: flowIdentityJwk(key).kid, key }
}

const ABOUT = {
  what: 'the key of flow identities',
  hint: 'bring it back from a backup, or copy the folder ca from another edge of the same store',
}

function keyFile(dataDir: string, name: string): string {
  return path.join(dataDir, 'ca', `${name}.key`)
}
