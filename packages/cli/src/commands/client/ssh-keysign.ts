import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { stateFolder } from '../../credentials/home.ts'
import { findEdgeOfHost, withOrigin, withoutDummy } from '../../credentials/known-edge.ts'
import { useNetwork } from '../../network/options.ts'
import type { SshKeyType } from '../../ssh/key.ts'
import { hasFreshFiles, type SshDestination } from '../../ssh/key-files.ts'
import { LOOK_ONLY } from '../../ssh/look-only.ts'
import { addAskOptions, loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { addNetworkOptions } from '../network-options.ts'
import { parseEdgeOrigin, parsePort } from '../options.ts'
import { readUsualArguments, type UsualOptions } from './usual-arguments.ts'

/** `postern client ssh-keysign`: a key and a certificate that sshd accepts for some minutes, started by ssh before it
 *  connects. Silent, and loads next to nothing, while there is one that lives. Nothing is written unless the edge
 *  has agreed. */

export interface KeysignOptions extends UsualOptions {
  keyType?: SshKeyType | undefined
  agent?: boolean | undefined
}

const KEY_TYPES: readonly SshKeyType[] = ['ed25519', 'ecdsa']

export async function runKeysign(options: KeysignOptions): Promise<void> {
  // parsed as a label of a known edge before any path is made of it: ssh passes what was typed
  const destination = findEdgeOfHost(stateFolder(), withoutDummy(options.host), {
    port: options.port,
    origin: options.edge,
  })
  if (process.env[LOOK_ONLY]) return
  await ensureKey(destination, options)
}

/** Does nothing when there is a live one. */
export async function ensureKey(
  destination: SshDestination,
  options: Omit<KeysignOptions, 'host'>,
): Promise<void> {
  useNetwork(options)
  try {
    if (options.agent) {
      const { ensureAgentKey } = await import('../../ssh/agent-key.ts')
      await ensureAgentKey(destination, options.keyType, loginPolicy(options))
    } else if (!hasFreshFiles(destination, options.keyType)) {
      const { issueKeyFiles } = await import('../../ssh/issue-key.ts')
      await issueKeyFiles(destination, options.keyType, loginPolicy(options))
    }
  } catch (error) {
    throw withOrigin(error, destination.edge.origin)
  }
}

const OWN_ARGUMENTS = { 'key-type': { type: 'string' }, agent: { type: 'boolean' } } as const

/** @returns undefined for anything unusual */
export function readUsualKeysign(args: readonly string[]): KeysignOptions | undefined {
  return readUsualArguments(args, OWN_ARGUMENTS, (usual, { agent, 'key-type': keyType }) => ({
    ...usual,
    agent: agent === true,
    keyType: keyType === undefined ? undefined : parseKeyType(String(keyType)),
  }))
}

function parseKeyType(text: string): SshKeyType {
  const type = KEY_TYPES.find((known) => known === text)
  if (type) return type
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not a kind of key`, {
    hint: `name one: --key-type ${KEY_TYPES.join(' or --key-type ')}`,
  })
}

export function addKeyOptions(command: Command): Command {
  return addNetworkOptions(
    addAskOptions(
      command
        .addOption(
          command
            .createOption('--key-type <type>', 'kind of a new key (default: ed25519)')
            .choices([...KEY_TYPES]),
        )
        .option('--agent', 'keep key and certificate in the running ssh-agent only, one for each host')
        .option('--port <port>', "the edge's port, to tell edges with the same domain apart", parsePort)
        .option('--edge <url>', 'the edge, https://HOST[:PORT]', parseEdgeOrigin),
    ),
  )
}

export function addClientSshKeysign(parent: Command): void {
  const command = parent
    .command('ssh-keysign')
    .description('get a key and a certificate for ssh: ~/.ssh/HOST and ~/.ssh/HOST-cert.pub')
    .requiredOption('--host <host>', 'full name of the service, LABEL.DOMAIN (%h in an ssh config)')
  addKeyOptions(command).action((options: KeysignOptions) => runKeysign(options))
  addExamples(command, [
    ['what `postern ssh-config --install` has ssh do', 'postern client ssh-keysign --host %h'],
    ['look at the certificate', 'ssh-keygen -Lf ~/.ssh/crimson-thunder-8434.edge.example.com-cert.pub'],
    [
      'into the agent, for programs that bring their own ssh',
      'postern client ssh-keysign --agent --host crimson-thunder-8434.edge.example.com',
    ],
  ])
}
