import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { getRequestListener } from '@hono/node-server'
import { ERRORS } from '@postern/shared/errors'
import { type StoreWatch, storeLost } from '../store-watch.ts'
import { createApi, createMtlsApi } from './api.ts'
import type { ApiParts } from './parts.ts'

/** Who answers a request: the login, the API, or neither when the store is gone. */
export interface Answers {
  /** In the room that anybody enters. */
  onHttps(request: IncomingMessage, response: ServerResponse): void
  /** In the room that takes a certificate. */
  onMtls(request: IncomingMessage, response: ServerResponse): void
}

const TOLD_WITHOUT_STORE: ReadonlySet<string> = new Set(['/healthz', '/readyz', '/v1/edge'])

export function createAnswers(parts: ApiParts, storeWatch: Pick<StoreWatch, 'isLost'>): Answers {
  const { login, audit, log } = parts
  const answerApi = getRequestListener(createApi(parts).fetch, { overrideGlobalObjects: false })
  const mtlsApi = createMtlsApi(parts)
  const answerMtls = getRequestListener(
    (request, bindings) => {
      const { socket } = bindings.incoming as IncomingMessage
      return mtlsApi.fetch(request, { ...bindings, peer: (socket as TLSSocket).getPeerX509Certificate() })
    },
    { overrideGlobalObjects: false },
  )

  function refuseStoreLost(request: IncomingMessage, response: ServerResponse): void {
    answerStoreLost(response)
    const clientAddress = request.socket.remoteAddress
    audit.record({ type: 'request.refused', code: 'STORE_LOST', clientAddress }).catch(() => {})
  }

  function breakOff(error: unknown, response: ServerResponse): void {
    log.error('http.failed', { error })
    response.destroy()
  }

  return {
    onHttps(request, response) {
      if (storeWatch.isLost && !TOLD_WITHOUT_STORE.has(request.url ?? '')) {
        return refuseStoreLost(request, response)
      }
      login
        .handle(request, response)
        .then((isLogin) => (isLogin ? undefined : answerApi(request, response)))
        .catch((error: unknown) => breakOff(error, response))
    },
    onMtls(request, response) {
      if (storeWatch.isLost) return refuseStoreLost(request, response)
      answerMtls(request, response).catch((error: unknown) => breakOff(error, response))
    },
  }
}

/** At once: whoever waits for a store that is gone waits for a time-out, and a thousand do together. */
function answerStoreLost(response: ServerResponse): void {
  const { code, message, hint } = storeLost()
  const headers = { 'content-type': 'application/json', 'cache-control': 'no-store', connection: 'close' }
  response.writeHead(ERRORS[code].http, headers).end(JSON.stringify({ error: { code, message, hint } }))
}
