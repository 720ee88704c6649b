import { serviceName } from '@postern/shared/api/fields'
import { PosternError } from '@postern/shared/errors'
import type { AllowList } from '@postern/shared/identity'
import * as v from 'valibot'
import type { ConnectorSettings } from './connector.ts'
import type { Target, TcpTarget } from './target.ts'

/** All that is said of one service, on the command line or in an entry of a file. */
export interface ServiceSettings extends ConnectorSettings {
  name: string
  label?: string | undefined
  /** Left out: whoever the service admits already. */
  allow?: AllowList | undefined
  replaceAllowList: boolean
  /** Where host keys are looked for, if anywhere. */
  sshServer?: TcpTarget | undefined
  edge?: string | undefined
  enrollTokenFile?: string | undefined
  caFile?: string | undefined
  caFingerprint?: Buffer | undefined
  publicCa?: boolean | undefined
}

/** One of a file. */
export interface ServiceEntry {
  line: number
  settings: ServiceSettings
}

/** Seldom enough for a server that writes down every connection. */
export const HEALTH_CHECK_MS = 30_000

const SSH_PORT = 22

/** @throws USAGE_INVALID */
export function parseServiceName(text: string): string {
  if (v.safeParse(serviceName, text).success) return text
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text.slice(0, 120))} is no name for a service`, {
    hint: 'use 1 to 100 characters that can be printed, on one line',
  })
}

/** Other services are not asked: some count a caller that says nothing as an attack.
 *  @param ssh left out: the port tells
 *  @returns where host keys are looked for, if anywhere
 *  @throws USAGE_INVALID */
export function findSshServer(target: Target, ssh: boolean | undefined): TcpTarget | undefined {
  if (!('path' in target)) return (ssh ?? target.port === SSH_PORT) ? target : undefined
  if (!ssh) return undefined
  throw new PosternError(
    'USAGE_INVALID',
    'host keys of ssh are looked for at a port, and the target is a socket',
    {
      hint: 'leave ssh out, or name the port of the ssh server',
    },
  )
}

/** @throws USAGE_INVALID */
export function refuseStrayCa({
  enrollTokenFile,
  caFile,
  caFingerprint,
  publicCa,
}: Pick<ServiceSettings, 'enrollTokenFile' | 'caFile' | 'caFingerprint' | 'publicCa'>): void {
  const named = [caFile, caFingerprint, publicCa].filter(Boolean)
  if (named.length > 1) {
    throw new PosternError('USAGE_INVALID', 'the CA of the edge is named in more than one way', {
      hint: 'keep one of the CA file, its fingerprint, and the public CAs',
    })
  }
  if (enrollTokenFile !== undefined || named.length === 0) return
  throw new PosternError('USAGE_INVALID', 'the CA of the edge is named beside an enroll token only', {
    hint: 'with a person the CA is named once: postern login --edge https://HOST --ca-file FILE',
  })
}
