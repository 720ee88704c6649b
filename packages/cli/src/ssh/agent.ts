import net from 'node:net'
import { SshReader, sshString, sshUint32 } from '@postern/shared/certs/ssh-wire'
import { PosternError } from '@postern/shared/errors'

/** Talks to the ssh-agent that is running (draft-ietf-sshm-ssh-agent): lists, adds and removes. Never asks it to sign,
 *  and believes no length that it says. */

const FAILURE = 5
const SUCCESS = 6
const REQUEST_IDENTITIES = 11
const IDENTITIES_ANSWER = 12
const REMOVE_IDENTITY = 18
const ADD_ID_CONSTRAINED = 25
const CONSTRAIN_LIFETIME = 1

const TIMEOUT_MS = 5_000
/** OpenSSH's own limit of a message. */
const MAX_MESSAGE_BYTES = 256 * 1024
const MAX_IDENTITIES = 2_048
const WINDOWS_PIPE = '\\\\.\\pipe\\openssh-ssh-agent'

export interface AgentIdentity {
  /** Public key or certificate. */
  blob: Buffer
  comment: string
}

export interface AddedKey {
  /** Name of the certificate's type, which is how the agent knows what follows. */
  algorithm: string
  certificateBlob: Buffer
  /** In the order of PROTOCOL.agent. */
  fields: Buffer
  comment: string
  /** Seconds after which the agent forgets it. */
  lifetimeSeconds: number
}

/** @throws SSH_AGENT_FAILED when none is announced */
export function findAgent(
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
): string {
  const socket = env.SSH_AUTH_SOCK || (platform === 'win32' ? WINDOWS_PIPE : undefined)
  if (socket) return socket
  throw new PosternError('SSH_AGENT_FAILED', 'no ssh-agent is running: SSH_AUTH_SOCK is not set')
}

export async function listIdentities(socketPath: string): Promise<AgentIdentity[]> {
  const answer = await ask(socketPath, Buffer.of(REQUEST_IDENTITIES))
  if (answer[0] !== IDENTITIES_ANSWER) throw refused('list its keys')
  try {
    const reader = new SshReader(answer.subarray(1))
    const count = reader.uint32()
    if (count > MAX_IDENTITIES) throw new RangeError('too many keys')
    return Array.from({ length: count }, () => ({
      blob: Buffer.from(reader.string()),
      comment: reader.string().toString('utf8'),
    }))
  } catch (cause) {
    throw new PosternError('SSH_AGENT_FAILED', 'the ssh-agent gave an answer that cannot be read', { cause })
  }
}

export async function addIdentity(socketPath: string, key: AddedKey): Promise<void> {
  const answer = await ask(
    socketPath,
    Buffer.concat([
      Buffer.of(ADD_ID_CONSTRAINED),
      sshString(key.algorithm),
      sshString(key.certificateBlob),
      key.fields,
      sshString(key.comment),
      Buffer.of(CONSTRAIN_LIFETIME),
      sshUint32(key.lifetimeSeconds),
    ]),
  )
  if (answer[0] !== SUCCESS) throw refused('take the certificate')
}

/** One that is not there any more is no failure. */
export async function removeIdentity(socketPath: string, blob: Buffer): Promise<void> {
  const answer = await ask(socketPath, Buffer.concat([Buffer.of(REMOVE_IDENTITY), sshString(blob)]))
  if (answer[0] !== SUCCESS && answer[0] !== FAILURE) throw refused('remove a key')
}

/** One connection for one question. */
function ask(socketPath: string, message: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(socketPath)
    const fail = (reason: string, cause?: unknown) => {
      socket.destroy()
      reject(new PosternError('SSH_AGENT_FAILED', `the ssh-agent at ${socketPath} ${reason}`, { cause }))
    }
    let heard = Buffer.alloc(0)
    socket.setTimeout(TIMEOUT_MS, () => fail('does not answer'))
    socket.on('error', (cause) => fail(`cannot be reached: ${cause.message}`, cause))
    socket.on('close', () => fail('closed the connection'))
    socket.on('data', (chunk) => {
      heard = Buffer.concat([heard, chunk])
      if (heard.length < 4) return
      const length = heard.readUInt32BE()
      if (length === 0 || length > MAX_MESSAGE_BYTES) return fail('gave an answer of an impossible length')
      if (heard.length < 4 + length) return
      resolve(heard.subarray(4, 4 + length))
      socket.destroy()
    })
    socket.write(sshString(message))
  })
}

function refused(what: string): PosternError {
  return new PosternError('SSH_AGENT_FAILED', `the ssh-agent refuses to ${what}`, {
    hint: 'it may be locked: ssh-add -X; or leave --agent out, to use files',
  })
}
