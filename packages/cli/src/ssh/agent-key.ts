import path from 'node:path'
import { callSignedIn, type LoginPolicy } from '../credentials/fresh.ts'
import { readStateFile, writeStateFile } from '../credentials/state-file.ts'
import { type AgentIdentity, addIdentity, findAgent, listIdentities, removeIdentity } from './agent.ts'
import { updateHostKeys } from './host-keys.ts'
import { lockDestination, requestCertificate } from './issue-key.ts'
import { generateSshKey, type SshKey, type SshKeyType } from './key.ts'
import { hashOf, isFresh, recordsFolder, type SshDestination } from './key-files.ts'

/** Key and certificate of a service in the running ssh-agent: the key is nowhere else, and the agent forgets it when
 *  the certificate ends. One for each host: the one before goes when the next one comes. */

const RECORD_SHAPE = {
  keyType: 'string',
  /** Of the certificate's base64. */
  certificateHash: 'string',
  /** Epoch milliseconds by the edge's clock. */
  notAfter: 'number',
  hostKeysPending: 'number?',
} as const

const COMMENT = 'postern '

/** @throws SSH_AGENT_FAILED before the edge is asked, when there is no agent */
export async function ensureAgentKey(
  destination: SshDestination,
  wanted: SshKeyType | undefined,
  policy: LoginPolicy,
): Promise<void> {
  const socket = findAgent()
  if (await hasFreshIdentity(socket, destination, wanted)) return
  await callSignedIn(destination.edge, policy, async (api, session) => {
    using _lock = await lockDestination(destination)
    if (await hasFreshIdentity(socket, destination, wanted)) return
    const key = generateSshKey(wanted ?? 'ed25519')
    const issued = await requestCertificate(api, session, destination, key.publicBlob)
    const { pending } = await updateHostKeys(api, session, destination)
    const [algorithm, encoded] = issued.certificate.split(' ') as [string, string]
    const certificateBlob = Buffer.from(encoded, 'base64')
    const before = ownIdentities(await listIdentities(socket), destination)
    await addIdentity(socket, {
      algorithm,
      certificateBlob,
      fields: agentFields(key),
      comment: commentOf(destination),
      lifetimeSeconds: Math.max(1, Math.floor((issued.notAfter - api.now()) / 1_000)),
    })
    for (const { blob } of before) await removeIdentity(socket, blob)
    writeStateFile(recordFile(destination), {
      keyType: key.type,
      certificateHash: hashOf(encoded),
      notAfter: issued.notAfter,
      ...(pending ? { hostKeysPending: 1 } : {}),
    })
  })
}

/** Takes the keys of these services out of the agent, as far as there is one. */
export async function forgetAgentKeys(edge: SshDestination['edge']): Promise<void> {
  try {
    const socket = findAgent()
    const suffix = `.${edge.domain}`
    for (const { blob, comment } of await listIdentities(socket)) {
      if (comment.startsWith(COMMENT) && comment.endsWith(suffix)) await removeIdentity(socket, blob)
    }
  } catch {
    // it forgets them by itself in some minutes
  }
}

async function hasFreshIdentity(
  socket: string,
  destination: SshDestination,
  wanted: SshKeyType | undefined,
): Promise<boolean> {
  // first: without an agent nothing is asked of the edge
  const own = ownIdentities(await listIdentities(socket), destination)
  const record = readStateFile(recordFile(destination), RECORD_SHAPE)
  if (!record || !isFresh(record, destination.edge, wanted)) return false
  return own.length === 1 && hashOf(own[0]!.blob.toString('base64')) === record.certificateHash
}

function ownIdentities(identities: readonly AgentIdentity[], destination: SshDestination): AgentIdentity[] {
  return identities.filter(({ comment }) => comment === commentOf(destination))
}

/** What `ssh-add -l` shows, and how ours are found again. */
function commentOf({ host }: SshDestination): string {
  return `${COMMENT}${host}`
}

/** A certificate brings its public key along; Ed25519 wants it once more. */
function agentFields({ type, publicFields, privateFields }: SshKey): Buffer {
  return type === 'ed25519' ? Buffer.concat([publicFields, privateFields]) : privateFields
}

function recordFile({ edge, label }: SshDestination): string {
  return path.join(recordsFolder(edge), `${label}.agent.json`)
}
