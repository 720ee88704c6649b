import path from 'node:path'
import type { KnownEdge } from '../credentials/known-edge.ts'

/** For `UserKnownHostsFile`: written by `host-keys.ts` and by nobody else. */
export function knownHostsFile(edge: Pick<KnownEdge, 'folder'>): string {
  return path.join(edge.folder, 'known_hosts')
}
