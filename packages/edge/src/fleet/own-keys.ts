import { sshFingerprint } from '@postern/shared/certs/ssh-key'
import { fingerprintOf } from '../ca/authorities.ts'
import type { FlowIdentityKeys } from '../ca/flow-identity-keys.ts'
import type { LiveAuthorities } from '../ca/live-authorities.ts'
import type { LiveSshAuthorities } from '../ca/live-ssh-authorities.ts'
import type { SshAuthority } from '../ca/ssh-authorities.ts'
import type { EdgeConfig } from '../config/config.ts'
import { loadLoginKeys } from '../login/keys.ts'
import type { KeyRing } from '../store/edge-keys.ts'

export interface OwnKeyParts {
  config: Pick<EdgeConfig, 'dataDir' | 'tls'>
  authorities: LiveAuthorities
  sshAuthorities: LiveSshAuthorities
  identityKeys: FlowIdentityKeys
}

/** What has to be the same at every edge of a store, asked anew each time: keys come and go while an edge runs. */
export async function openOwnKeys({
  config,
  authorities,
  sshAuthorities,
  identityKeys,
}: OwnKeyParts): Promise<() => KeyRing> {
  const { signingKey } = await loadLoginKeys(config.dataDir)
  const login = [{ name: signingKey.kid!, signsFrom: 0, trustedUntil: null }]
  return () => ({
    login,
    client: authorities.dated('client', fingerprintOf),
    connector: authorities.dated('connector', fingerprintOf),
    workload: authorities.dated('workload', fingerprintOf),
    server: authorities.dated('server', fingerprintOf),
    'ssh-user': sshAuthorities.dated('user', sshFingerprintOf),
    'ssh-host': sshAuthorities.dated('host', sshFingerprintOf),
    'flow-identity': identityKeys.dated(),
    // with a public certificate nobody sees it
    ...(config.tls ? {} : { edge: authorities.dated('edge', fingerprintOf) }),
  })
}

function sshFingerprintOf({ publicKey }: SshAuthority): string {
  return sshFingerprint(publicKey.blob)
}
