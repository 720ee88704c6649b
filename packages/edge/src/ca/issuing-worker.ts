/** The other side of `issuing-thread.ts`. */
import { parentPort, workerData } from 'node:worker_threads'
import { PosternError } from '@postern/shared/errors'
import { openAuthority } from './authorities.ts'
import { issueClientCertificate } from './issue-client.ts'
import { issueSshCertificate, type SshCertificateProfile } from './issue-ssh.ts'
import type { Answer, IssuingKeys, Question } from './issuing-thread.ts'
import { readCsrPublicKey } from './public-key.ts'

const port = parentPort!
let { client, sshUser } = open(workerData as IssuingKeys)

/** Copies of what the edge has. */
function open(keys: IssuingKeys) {
  return {
    client: openAuthority(keys.client),
    sshUser: { ...keys.sshUser, publicKey: withBuffer(keys.sshUser.publicKey) },
  }
}

const tasks = {
  readCsrPublicKey,
  issueClient: async (request: Parameters<typeof issueClientCertificate>[1], now: number) =>
    issueClientCertificate(await client, request, now),
  issueSshUser: (profile: SshCertificateProfile) =>
    issueSshCertificate(sshUser, { ...profile, subject: withBuffer(profile.subject) }),
}
export type Tasks = typeof tasks

port.on('message', async (message: Question | IssuingKeys) => {
  if (!('task' in message)) {
    ;({ client, sshUser } = open(message))
    return
  }
  const { id, task, args } = message
  const carryOut = tasks[task] as (...args: unknown[]) => Promise<unknown>
  try {
    port.postMessage({ id, result: await carryOut(...args) } satisfies Answer)
  } catch (error) {
    port.postMessage({ id, ...describe(error) } satisfies Answer)
  }
})

/** A copy of an error has lost its code. */
function describe(error: unknown) {
  if (!(error instanceof PosternError)) return { broken: String(error) }
  const { code, message, hint } = error
  return { refused: { code, message, hint } }
}

/** A copy of a Buffer is an array of bytes. */
function withBuffer<T extends { blob: Uint8Array }>(key: T): T & { blob: Buffer } {
  return { ...key, blob: Buffer.from(key.blob) }
}
