import type { Command } from 'commander'

/** How to get out of this network, where the environment does not say it. */
export function addNetworkOptions(command: Command): Command {
  return command
    .option(
      '--proxy <url>',
      'the proxy that leads to the edge, http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT (default: POSTERN_PROXY, HTTPS_PROXY, ALL_PROXY)',
    )
    .option('--proxy-credentials-file <file>', 'one line USER:PASSWORD for the proxy, in a file of mode 600')
    .option(
      '--proxy-ca-file <file>',
      'CA of an https:// proxy, in PEM (default: POSTERN_PROXY_CA_FILE, or what this machine trusts)',
    )
    .addOption(
      command
        .createOption(
          '--transport <kind>',
          'ws: inside a WebSocket, where something ends TLS in front of the edge (default: POSTERN_TRANSPORT, or tls)',
        )
        .choices(['tls', 'ws']),
    )
    .option(
      '--transport-ca <file>',
      'CA of what ends TLS in front of the edge, in PEM (default: the public ones)',
    )
}
