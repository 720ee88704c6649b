import { randomBytes } from 'node:crypto'
import { PosternError } from '@postern/shared/errors'
import type Provider from 'oidc-provider'
import { clientAddressOf } from './client-address.ts'
import { findByUserCode, parseUserCode, type WaitingDevice } from './device-codes.ts'
import { readForm, requireOwnOrigin } from './form-post.ts'
import { type Exchange, type InteractionParts, redirect, send } from './interaction.ts'
import { DEVICE_DONE_PATH, INTERACTION_SECONDS, ROUTES } from './issuer.ts'
import { keepDeviceCookie } from './issuer-cookies.ts'
import { showDeviceDone, showUserCode } from './pages.ts'
import { recordRefused } from './record-refused.ts'

/** Where the person types the code of a program that has no browser. The code is typed, never taken from a link:
 *  a link would let whoever sends it choose the code. From here on it is a login like every other, with a fresh
 *  sign-in at the provider, and its confirmation shows where the program asked from. */

/** `GET /device`: an empty form, whatever the link says. */
export async function askUserCode(exchange: Exchange): Promise<void> {
  send(exchange.res, showUserCode(exchange.res, { actionPath: ROUTES.code_verification }))
}

/** `POST /device`: begins the login in this browser, for the program that shows the code. */
export async function takeUserCode(exchange: Exchange, parts: InteractionParts): Promise<void> {
  const { provider, clock, pending } = parts
  requireOwnOrigin(exchange.req, parts.origin)
  const form = await readForm(exchange.req)
  const address = clientAddressOf(exchange.req)
  const giveBack = parts.codeAttempts.begin(address, clock())
  const userCode = parseUserCode(form.get('user_code') ?? '')
  const device = userCode === undefined ? undefined : await findByUserCode(provider, userCode)
  if (!device) {
    const code = 'LOGIN_FAILED'
    parts.strangers.countLogin(address)
    parts.log.info('login.wrong_code', { code, clientAddress: address })
    await recordRefused({ code, clientAddress: address }, parts.record)
    const problem = 'No program waits for this code: it is mistyped, was used already, or is too old.'
    return send(exchange.res, showUserCode(exchange.res, { actionPath: ROUTES.code_verification, problem }))
  }
  giveBack()
  parts.codeAttempts.open(device.code.jti, clock())
  pending.admit(address, clock())
  const uid = await beginInteraction(device, parts)
  pending.add(uid, address, clock())
  keepDeviceCookie(provider, exchange, uid, INTERACTION_SECONDS)
  redirect(exchange.res, `/login/${uid}`)
}

/** `GET /device/done`. */
export async function showDone(exchange: Exchange): Promise<void> {
  send(exchange.res, showDeviceDone(exchange.res))
}

/** @NOTE nothing of the program's request but its scope: it must not choose hints or prompts of the sign-in */
async function beginInteraction({ code }: WaitingDevice, { provider, origin }: InteractionParts) {
  const uid = randomBytes(32).toString('base64url')
  const { clientId } = code
  const scope = code.params?.scope
  if (clientId === undefined || typeof scope !== 'string') {
    throw new PosternError('LOGIN_FAILED', 'the program asks for nothing')
  }
  // the types know no constructor
  const Interaction = provider.Interaction as unknown as new (
    uid: string,
    payload: object,
  ) => InstanceType<Provider['Interaction']>
  const interaction = new Interaction(uid, {
    params: { client_id: clientId, scope, prompt: 'login', max_age: 0 },
    prompt: { name: 'login', reasons: ['device_code'], details: {} },
    returnTo: `${origin}${DEVICE_DONE_PATH}`,
    deviceCode: code.jti,
  })
  await interaction.save(Math.max(1, Math.min(INTERACTION_SECONDS, code.remainingTTL)))
  return uid
}
