import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { parseSshPublicKey } from '@postern/shared/certs/ssh-key'
import { parseSshPrincipal } from '@postern/shared/certs/ssh-principals'
import { issueSshCertificate } from '../packages/edge/src/ca/issue-ssh.ts'
import { openSshAuthorities, SSH_CA_KEY_TYPES } from '../packages/edge/src/ca/ssh-authorities.ts'
import { keygen, type OwnSshd, opens, startOwnSshd } from './support/own-sshd.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** Every kind of CA key with every kind of a person's key, at a real sshd: it takes fewer signatures than ssh-keygen
 *  shows. The edge's own signer signs, for a person's RSA key is one that `postern` does not make. */

const PRINCIPAL = parseSshPrincipal('calm-river-1.edge.localhost')
const SUBJECTS = { ed25519: [], ecdsa: ['-b', '256'], rsa: ['-b', '2048'] }
const folder = makeTempFolder('kinds')

const authorities = await Promise.all(
  SSH_CA_KEY_TYPES.map(async (type) => {
    const dataDir = path.join(folder, `edge-${type}`)
    mkdirSync(path.join(dataDir, 'ca'), { recursive: true })
    return { type, ca: (await openSshAuthorities(dataDir, type)).user }
  }),
)

/** An sshd that trusts one of them. */
async function startSshd(type: string, line: string): Promise<OwnSshd> {
  const [ca, principals] = [path.join(folder, `${type}.pub`), path.join(folder, 'principals')]
  writeFileSync(ca, `${line}\n`)
  writeFileSync(principals, `${PRINCIPAL}\n`)
  const sshd = await startOwnSshd({
    lines: [`TrustedUserCAKeys ${ca}`, `AuthorizedPrincipalsFile ${principals}`],
  })
  writeFileSync(path.join(sshd.folder, 'authorized_keys'), '') // certificates or nothing
  return sshd
}

for (const [at, { type, ca }] of authorities.entries()) {
  describe(`under an ${type} CA`, () => {
    let sshd: OwnSshd
    before(async () => {
      sshd = await startSshd(type, ca.line)
    })
    after(() => sshd?.[Symbol.asyncDispose]())

    for (const [subject, bits] of Object.entries(SUBJECTS)) {
      const sign = async (authority: typeof ca, name: string) => {
        const keyFile = path.join(folder, name)
        keygen('-q', '-t', subject, ...bits, '-N', '', '-C', '', '-f', keyFile)
        const now = Date.now()
        const { certificate } = await issueSshCertificate(authority, {
          kind: 'user',
          subject: parseSshPublicKey(readFileSync(`${keyFile}.pub`, 'utf8').trim()),
          keyId: 'ann@mycorp.com',
          principals: [PRINCIPAL],
          notBefore: now - 60_000,
          notAfter: now + 600_000,
          extensions: ['permit-pty'],
        })
        const certificateFile = `${keyFile}-cert.pub`
        writeFileSync(certificateFile, `${certificate}\n`)
        return { keyFile, certificateFile }
      }

      test(`a certificate of an ${subject} key opens it, and one of another CA does not`, async () => {
        assert.ok(await opens(sshd, await sign(ca, `${type}-${subject}`)), sshd.log())
        const other = authorities[(at + 1) % authorities.length]!.ca
        assert.ok(!(await opens(sshd, await sign(other, `${type}-${subject}-foreign`))))
      })
    }
  })
}
