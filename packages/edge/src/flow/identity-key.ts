import path from 'node:path'
import { type FlowIdentityKey, flowIdentityJwk } from '@postern/shared/proxy-protocol/flow-identity'
import { openEd25519Key } from '../ed25519-key.ts'

/** Signs who is at the other end of a flow, for services that ask, and nothing else. It lies with the authorities, so that
 *  it is copied with them to other edges and into backups.
 *  @throws CONFIG_INVALID */
export async function openFlowIdentityKey(dataDir: string): Promise<FlowIdentityKey> {
  const key = await openEd25519Key(path.join(dataDir, 'ca', 'flow-identity.key'), {
    what: 'the key of flow identities',
    hint: 'bring it back from a backup, or move it away: the edge makes a new one, and services fetch its public half again',
  })
  return { id: flowIdentityJwk(key).kid, key }
}
