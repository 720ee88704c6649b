import { setTimeout as wait } from 'node:timers/promises'
import { PosternError } from '@postern/shared/errors'
import * as oidc from 'openid-client'
import type { EdgeApi } from '../api/edge-api.ts'
import { printable, tell, tellMore } from '../io.ts'
import { checkOwnOrigin, wrapOauth } from './oauth.ts'

/** A login without a browser on this machine (RFC 8628): shows a code, which the person types on another one. */

const SCOPE = 'openid email offline_access'

export interface DeviceKey {
  DPoP: oidc.DPoPHandle
  /** Of the key that alone may redeem the code. */
  thumbprint: string
}

export function offersDeviceFlow(config: oidc.Configuration): boolean {
  return config.serverMetadata().device_authorization_endpoint !== undefined
}

/** Asks for a code, shows it, and waits until it was typed.
 *  @throws LOGIN_REFUSED the person or the provider said no · LOGIN_FAILED nobody typed it in time */
export async function signInWithCode(
  api: EdgeApi,
  config: oidc.Configuration,
  key: DeviceKey,
  timeoutMs: number,
): Promise<oidc.TokenEndpointResponse> {
  const device = await wrapOauth(
    api,
    oidc.initiateDeviceAuthorization(config, { scope: SCOPE, dpop_jkt: key.thumbprint }),
  )
  checkOwnOrigin({ verification_endpoint: device.verification_uri }, api.origin)
  showCode(device)
  const enough = AbortSignal.timeout(Math.min(timeoutMs, device.expires_in * 1_000))
  return await poll(api, config, device, { DPoP: key.DPoP, signal: enough })
}

function showCode(device: oidc.DeviceAuthorizationResponse): void {
  tell('to sign in, open this page in a browser on any machine:')
  tellMore(printable(device.verification_uri))
  tell('and type this code, which the page shows again before you agree:')
  tellMore(printable(device.user_code))
  tellMore('Check there that code and address are yours, and never pass the code on.')
}

/** At the edge's own pace: openid-client keeps to `interval` and `slow_down`. A network that fails for a while
 *  (a laptop that sleeps) does not end the login. */
async function poll(
  api: EdgeApi,
  config: oidc.Configuration,
  device: oidc.DeviceAuthorizationResponse,
  options: { DPoP: oidc.DPoPHandle; signal: AbortSignal },
): Promise<oidc.TokenEndpointResponse> {
  for (;;) {
    try {
      return await wrapOauth(api, oidc.pollDeviceAuthorizationGrant(config, device, undefined, options))
    } catch (error) {
      if (options.signal.aborted) throw explainDeviceFailure(undefined)
      if (!(error instanceof PosternError) || error.code !== 'EDGE_UNREACHABLE') {
        throw explainDeviceFailure(error)
      }
      await wait(1_000)
    }
  }
}

/** @param error undefined: nobody typed the code in time */
export function explainDeviceFailure(error: unknown): unknown {
  const hint = 'run the command again and type its new code'
  const oauthError = (error as { cause?: { error?: unknown } } | undefined)?.cause?.error
  if (error === undefined || oauthError === 'expired_token') {
    return new PosternError('LOGIN_FAILED', 'nobody typed the code within the time for it', { hint })
  }
  // there is no session yet that could have ended
  if (oauthError === 'invalid_grant') {
    return new PosternError('LOGIN_FAILED', 'the code is not good any more', { hint, cause: error })
  }
  return error
}
