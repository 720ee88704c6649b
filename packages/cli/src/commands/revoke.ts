import type { RevocationRequest } from '@postern/shared/api/revocations'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { callSignedIn } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { pickEdge } from '../credentials/known-edge.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'
import { printReceipt } from './receipt.ts'

interface RevokeOptions extends AskOptions {
  certificate?: string
  connector?: string
  identity?: string
  service?: string
  session?: string
  edge?: string
  json?: boolean
}

async function runRevoke(options: RevokeOptions): Promise<void> {
  const request = readRequest(options)
  const edge = pickEdge(stateFolder(), options.edge)
  const receipt = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.revoke(session, request),
  )
  await printReceipt(receipt, options)
}

/** @throws USAGE_INVALID none, or several */
function readRequest(options: RevokeOptions): RevocationRequest {
  const { certificate, connector, identity, service, session } = options
  const requests: RevocationRequest[] = []
  if (certificate !== undefined) requests.push({ certificateSerial: readSerial(certificate) })
  if (connector !== undefined) requests.push({ connectorId: connector })
  if (identity !== undefined) requests.push({ email: identity })
  if (service !== undefined) requests.push({ service })
  if (session !== undefined) requests.push({ sessionId: session })
  const [request, ...more] = requests
  if (request && more.length === 0) return request
  throw new PosternError(
    'USAGE_INVALID',
    'say what to revoke, one of: --identity, --session, --certificate, --connector, --service',
  )
}

function readSerial(serial: string): string {
  if (/^[0-9A-Fa-f]{1,64}$/.test(serial)) return serial
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(serial)} is not a serial`, {
    hint: 'it stands in the log of sshd, in ssh-keygen -L and in postern audit list',
  })
}

export function addRevoke(program: Command): void {
  const command = program
    .command('revoke')
    .description(
      'take back what was issued and end what lives by it; the answer says what, how many and when',
    )
    .option('--identity <email>', 'every session, certificate and flow of this person (an admin)')
    .option('--session <id>', 'one login (its person, or an admin)')
    .option(
      '--certificate <serial>',
      'of ssh as its log shows it, of TLS in hex (its service’s owner, or an admin)',
    )
    .option('--connector <id>', 'one connector process (its service’s owner, or an admin)')
    .option('--service <service>', 'all that was issued for a service; it stays (its owner, or an admin)')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
  addAskOptions(command).action(runRevoke)
  addExamples(command, [
    ['one certificate, by the serial in the log of sshd', 'postern revoke --certificate 5248869306421956178'],
    [
      'a person who has left: first take them off the lists, or lock them',
      'postern revoke --identity contractor@example.com',
    ],
    ['a server that was stolen', 'postern revoke --connector con_Zb3kq0mT1vYxEw8R'],
  ])
}
