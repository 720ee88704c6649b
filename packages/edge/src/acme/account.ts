import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type { AcmeConfig } from '../config/config.ts'
import type { AcmeClient } from './client.ts'
import type { AcmeState, KeptAccount } from './state.ts'

/** The edge's account at the server. Its key is made once and kept: rate limits, terms and bindings hang on it. */

/** The key is on the disk before the server hears of it.
 *  @throws STATE_INVALID */
export async function openAccount(
  state: AcmeState,
  directory: URL,
): Promise<{ kept: KeptAccount; key: KeyObject }> {
  const known = await state.readAccount(directory)
  if (known) return { kept: known, key: createPrivateKey(known.key) }
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const kept = { directory: directory.href, key: pem }
  await state.writeAccount(kept)
  return { kept, key: privateKey }
}

/** Lets the client act as the account, which is made at the server when it has none for this key (RFC 8555 §7.3).
 *  @throws ACME_REFUSED */
export async function signInAccount(
  client: AcmeClient,
  kept: KeptAccount,
  { config, state }: { config: AcmeConfig; state: AcmeState },
): Promise<void> {
  const { email, externalAccount } = config
  const contact = email === undefined ? [] : [`mailto:${email}`]
  const { newAccount, meta } = await client.directory()
  if (meta?.externalAccountRequired && !externalAccount) {
    throw new PosternError('ACME_REFUSED', 'the ACME server wants an account of its own: none is named', {
      hint: 'name the key id and key that the CA has given you: tls.acme.eab_key_id and tls.acme.eab_key_file',
    })
  }
  const binding = externalAccount && (await client.bindExternalAccount(newAccount, externalAccount))
  // known or not: the server answers with the account of this key
  const answer = await client.post(newAccount, {
    termsOfServiceAgreed: true,
    contact,
    ...(binding ? { externalAccountBinding: binding } : {}),
  })
  const url = answer.header('location')
  if (!url || !URL.canParse(url)) {
    throw new PosternError('ACME_PROTOCOL_INVALID', 'the ACME server does not say where the account is')
  }
  client.account = url
  if (kept.url === url && kept.email !== email) await client.post(url, { contact })
  if (kept.url !== url || kept.email !== email) {
    const { email: _, ...rest } = kept
    await state.writeAccount({ ...rest, url, ...(email === undefined ? {} : { email }) })
  }
}
