import { PosternError } from '@postern/shared/errors'

/** How this network is left, as the command line names it. It is kept where the environment names it too, and so holds
 *  for the programs that this one starts: ssh starts `postern client tls` again. */

export interface NetworkOptions {
  proxy?: string | undefined
  proxyCredentialsFile?: string | undefined
  proxyCaFile?: string | undefined
  transport?: string | undefined
  transportCa?: string | undefined
}

/** For who reads arguments without commander. */
export const NETWORK_ARGUMENTS = {
  proxy: { type: 'string' },
  'proxy-credentials-file': { type: 'string' },
  'proxy-ca-file': { type: 'string' },
  transport: { type: 'string' },
  'transport-ca': { type: 'string' },
} as const

export function networkOf(
  values: Partial<Record<keyof typeof NETWORK_ARGUMENTS, string | undefined>>,
): NetworkOptions {
  return {
    proxy: values.proxy,
    proxyCredentialsFile: values['proxy-credentials-file'],
    proxyCaFile: values['proxy-ca-file'],
    transport: values.transport,
    transportCa: values['transport-ca'],
  }
}

/** @throws USAGE_INVALID for a password on the command line, which every user of the machine can read */
export function useNetwork(options: NetworkOptions): void {
  const { proxy, proxyCredentialsFile, proxyCaFile, transport, transportCa } = options
  if (proxy !== undefined) process.env.POSTERN_PROXY = refuseCredentials(proxy)
  if (proxyCredentialsFile !== undefined) process.env.POSTERN_PROXY_CREDENTIALS_FILE = proxyCredentialsFile
  if (proxyCaFile !== undefined) process.env.POSTERN_PROXY_CA_FILE = proxyCaFile
  if (transport !== undefined) process.env.POSTERN_TRANSPORT = transport
  if (transportCa !== undefined) process.env.POSTERN_TRANSPORT_CA = transportCa
}

function refuseCredentials(proxy: string): string {
  if (!proxy.includes('@')) return proxy
  throw new PosternError('USAGE_INVALID', 'the address in --proxy holds a user name or a password', {
    hint: 'every user of this machine can read a command line: put USER:PASSWORD into a file of mode 600, and name it with --proxy-credentials-file',
  })
}
