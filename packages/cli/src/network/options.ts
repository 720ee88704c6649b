import { PosternError } from '@postern/shared/errors'

/** How this network is left, as the command line names it. It is kept where the environment names it too, and so holds
 *  for the programs that this one starts: ssh starts `postern client tls` again. */

export interface NetworkOptions {
  proxy?: string | undefined
  proxyCredentialsFile?: string | undefined
}

/** For who reads arguments without commander. */
export const NETWORK_ARGUMENTS = {
  proxy: { type: 'string' },
  'proxy-credentials-file': { type: 'string' },
} as const

export function networkOf(
  values: Partial<Record<keyof typeof NETWORK_ARGUMENTS, string | undefined>>,
): NetworkOptions {
  return { proxy: values.proxy, proxyCredentialsFile: values['proxy-credentials-file'] }
}

/** @throws USAGE_INVALID for a password on the command line, which every user of the machine can read */
export function useNetwork({ proxy, proxyCredentialsFile }: NetworkOptions): void {
  if (proxy !== undefined) process.env.POSTERN_PROXY = refuseCredentials(proxy)
  if (proxyCredentialsFile !== undefined) process.env.POSTERN_PROXY_CREDENTIALS_FILE = proxyCredentialsFile
}

function refuseCredentials(proxy: string): string {
  if (!proxy.includes('@')) return proxy
  throw new PosternError('USAGE_INVALID', 'the address in --proxy holds a user name or a password', {
    hint: 'every user of this machine can read a command line: put USER:PASSWORD into a file of mode 600, and name it with --proxy-credentials-file',
  })
}
