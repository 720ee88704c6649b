import type { KeyObject } from 'node:crypto'
import type { Worker } from 'node:worker_threads'
import { fromPublicError, type PublicError } from '@postern/shared/errors'
import { startThread } from '../start-thread.ts'
import type { Authority, KeptAuthority } from './authorities.ts'
import type { ClientCertificateRequest } from './issue-client.ts'
import type { IssuedSshCertificate, SshCertificateProfile } from './issue-ssh.ts'
import type { Tasks } from './issuing-worker.ts'
import type { IssuedLeaf } from './leaf.ts'
import type { SshAuthority } from './ssh-authorities.ts'

/** What the thread is given: handles of keys, not their bytes. It shares the memory of this process. */
export interface IssuingKeys {
  client: KeptAuthority
  sshUser: SshAuthority
}

export interface Question {
  id: number
  task: keyof Tasks
  args: unknown[]
}

export type Answer = { id: number } & ({ result: unknown } | { refused: PublicError } | { broken: string })

function keysOf(client: Authority, sshUser: SshAuthority): IssuingKeys {
  const { kind, certificatePem, certificateFile, signingKey } = client
  return { client: { kind, certificatePem, certificateFile, signingKey }, sshUser }
}

/** Certificates for people, in a thread of its own: reading a request, composing and signing take milliseconds in which
 *  no flow would move a byte. It signs what it is told; who gets a certificate is decided before. The thread starts with the
 *  first question, and again with the next one when it has broken. */
export class IssuingThread implements AsyncDisposable {
  #keys: IssuingKeys
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #worker: Worker | undefined
  #lastId = 0

  constructor(client: Authority, sshUser: SshAuthority) {
    this.#keys = keysOf(client, sshUser)
  }

  /** What is asked from now on is signed by these. */
  replaceKeys(client: Authority, sshUser: SshAuthority): void {
    this.#keys = keysOf(client, sshUser)
    this.#worker?.postMessage(this.#keys)
  }

  /** @throws as `readCsrPublicKey` of public-key.ts */
  readCsrPublicKey(csr: string): Promise<KeyObject> {
    return this.#ask('readCsrPublicKey', csr)
  }

  /** @throws as `issueClientCertificate` of issue-client.ts */
  issueClient(request: ClientCertificateRequest, now: number): Promise<IssuedLeaf> {
    return this.#ask('issueClient', request, now)
  }

  /** @throws as `issueSshCertificate` of issue-ssh.ts */
  issueSshUser(profile: SshCertificateProfile): Promise<IssuedSshCertificate> {
    return this.#ask('issueSshUser', profile)
  }

  /** Whoever waits is refused. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate()
  }

  #ask<Name extends keyof Tasks>(
    task: Name,
    ...args: Parameters<Tasks[Name]>
  ): Promise<Awaited<ReturnType<Tasks[Name]>>> {
    const worker = this.#worker ?? this.#start()
    const id = ++this.#lastId
    worker.postMessage({ id, task, args } satisfies Question)
    const asked = Promise.withResolvers<unknown>()
    this.#waiting.set(id, asked)
    worker.ref()
    return asked.promise as Promise<Awaited<ReturnType<Tasks[Name]>>>
  }

  #start(): Worker {
    const worker = startThread(new URL('issuing-worker.ts', import.meta.url), this.#keys)
    worker.on('message', (answer: Answer) => this.#settle(answer))
    let cause: unknown
    worker.on('error', (error) => (cause = error))
    worker.on('exit', () => this.#fail(new Error('the thread of certificates has ended', { cause })))
    this.#worker = worker
    return worker
  }

  #settle(answer: Answer): void {
    const asked = this.#waiting.get(answer.id)
    this.#waiting.delete(answer.id)
    if (this.#waiting.size === 0) this.#worker?.unref()
    if ('result' in answer) return asked?.resolve(answer.result)
    asked?.reject(
      'refused' in answer ? fromPublicError(answer.refused, 'INTERNAL') : new Error(answer.broken),
    )
  }

  #fail(error: Error): void {
    this.#worker = undefined
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}
