import type { RevocationRequest } from '@postern/shared/api/ssh'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { callSignedIn } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { pickEdge } from '../credentials/known-edge.ts'
import { printJson, tell } from '../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'

interface RevokeOptions extends AskOptions {
  certificate?: string
  identity?: string
  edge?: string
  json?: boolean
}

async function runRevoke(options: RevokeOptions): Promise<void> {
  const request = readRequest(options)
  const edge = pickEdge(stateFolder(), options.edge)
  const done = await callSignedIn(edge, loginPolicy(options), (api, session) => api.revoke(session, request))
  if (options.json) return printJson(done)
  const { sshCertificates, tlsCertificates, sessions, flows, krlVersion } = done
  tell(
    `revoked: ${sshCertificates} ssh and ${tlsCertificates} TLS certificates, ${sessions} sessions; ended ${flows} flows`,
  )
  tell(`servers refuse them once they have fetched version ${krlVersion} of the list`)
}

/** @throws USAGE_INVALID both or neither */
function readRequest({ certificate, identity }: RevokeOptions): RevocationRequest {
  if (certificate !== undefined && identity === undefined) {
    if (/^[0-9A-Fa-f]{1,64}$/.test(certificate)) return { certificateSerial: certificate }
    throw new PosternError('USAGE_INVALID', `${JSON.stringify(certificate)} is not a serial`, {
      hint: 'it stands in the log of sshd, in ssh-keygen -L and in postern audit list',
    })
  }
  if (identity !== undefined && certificate === undefined) return { email: identity }
  throw new PosternError('USAGE_INVALID', 'say what to revoke: --certificate SERIAL or --identity EMAIL')
}

export function addRevoke(program: Command): void {
  const command = program
    .command('revoke')
    .description('take back one certificate, or every session and certificate of a person')
    .option(
      '--certificate <serial>',
      'of ssh as its log shows it, of TLS in hex (its service’s owner, or an admin)',
    )
    .option('--identity <email>', 'everything of this person (an admin)')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
  addAskOptions(command).action(runRevoke)
  addExamples(command, [
    ['one certificate, by the serial in the log of sshd', 'postern revoke --certificate 5248869306421956178'],
    [
      'a person who has left: first take them off the lists',
      'postern revoke --identity contractor@example.com',
    ],
  ])
}
