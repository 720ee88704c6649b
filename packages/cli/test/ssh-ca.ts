import { spawnSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { SshHostKeyRecord } from '@postern/shared/api/ssh'
import { signHostKeyRecord } from '@postern/shared/certs/ssh-host-record'
import { sshString } from '@postern/shared/certs/ssh-wire'

/** The ssh part of the fake edge: certificates by `ssh-keygen`, and a signed record of host keys. */
export class SshCa implements Disposable {
  ttlMs = 300_000
  /** What the record says; the service id changes when a label is given to somebody else. */
  hostKeys: { keys: string[]; revision: number; pending: boolean; serviceId: string } = {
    keys: [],
    revision: 0,
    pending: false,
    serviceId: 'service-1',
  }
  readonly #hostCa: KeyObject = generateKeyPairSync('ed25519').privateKey
  readonly #folder: string = mkdtempSync(path.join(tmpdir(), 'postern-ca-'))
  #serial = 1_000

  constructor() {
    keygen('-q', '-t', 'ed25519', '-N', '', '-f', path.join(this.#folder, 'ca'))
  }

  get hostCaLine(): string {
    const { x } = this.#hostCa.export({ format: 'jwk' })
    const blob = Buffer.concat([sshString('ssh-ed25519'), sshString(Buffer.from(x!, 'base64url'))])
    return `ssh-ed25519 ${blob.toString('base64')}`
  }

  certify(publicKey: string, host: string, now: number): Record<string, unknown> {
    const serial = String(this.#serial++)
    const subject = path.join(this.#folder, `subject-${serial}`)
    writeFileSync(`${subject}.pub`, `${publicKey}\n`)
    const notBefore = now - 300_000
    const notAfter = now + this.ttlMs
    const seconds = [notBefore, notAfter].map((ms) => `0x${Math.floor(ms / 1_000).toString(16)}`)
    const names = `dev@mycorp.com,${host}`
    const files = [path.join(this.#folder, 'ca'), `${subject}.pub`] as const
    const validity = ['-V', seconds.join(':')]
    keygen('-q', '-s', files[0], '-I', 'dev@mycorp.com', '-n', names, '-z', serial, ...validity, files[1])
    const certificate = readFileSync(`${subject}-cert.pub`, 'utf8').split(' ').slice(0, 2).join(' ').trim()
    return {
      certificate,
      serial,
      keyId: 'dev@mycorp.com',
      principals: names.split(','),
      fingerprint: 'SHA256:',
      notBefore,
      notAfter,
      serviceId: this.hostKeys.serviceId,
    }
  }

  describeHostKeys(host: string, now: number): Record<string, unknown> {
    const { keys, revision, serviceId, pending } = this.hostKeys
    const claims = { host, serviceId, keys, revision, iat: Math.floor(now / 1_000) }
    return { hostCa: this.hostCaLine, keys, record: this.signRecord(claims), pending }
  }

  signRecord(record: SshHostKeyRecord, key: KeyObject = this.#hostCa): string {
    return signHostKeyRecord(record, { type: 'ssh-ed25519', key })
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

function keygen(...args: string[]): void {
  const { status, stderr } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ssh-keygen failed: ${stderr}`)
}
