import { PosternError, toPublicError } from '@postern/shared/errors'
import type { Logger } from '@postern/shared/logger'
import { HelloFrame, readFrameBody } from '@postern/shared/protocol/control-frames'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import type { AuditLog } from '../audit/record.ts'
import type { Entered } from '../flow/rooms.ts'
import type { Strangers } from '../limits/strangers.ts'
import { type ConnectorTrust, identifyConnector } from './identify-connector.ts'
import type { ConnectorRegistry } from './registry.ts'

/** A data connection that has not said hello after this long is closed. */
const HELLO_TIMEOUT_MS = 10_000

/** Takes in a data connection: its certificate must be that of the connector whose attachment it names, then it
 *  waits in that attachment's pool. Never rejects. */
export async function acceptDataConnection(
  { tls, clientAddress, clientHost }: Pick<Entered, 'tls' | 'clientAddress' | 'clientHost'>,
  parts: {
    trust: ConnectorTrust
    registry: ConnectorRegistry
    audit: AuditLog
    strangers: Pick<Strangers, 'identifying'>
    log: Logger
    helloTimeoutMs?: number | undefined
  },
): Promise<void> {
  const leaf = tls.getPeerX509Certificate()
  const end = new FramedEnd(tls)
  let connectorId: string | undefined
  try {
    if (!leaf) throw new PosternError('CERTIFICATE_REFUSED', 'the connector showed no certificate')
    const identified = await parts.strangers.identifying(clientHost, () =>
      identifyConnector(leaf, parts.trust),
    )
    connectorId = identified.connectorId
    const { attachmentId } = await readHello(end, parts.helloTimeoutMs ?? HELLO_TIMEOUT_MS)
    const attachment = parts.registry.find(attachmentId)
    if (attachment?.connectorId !== connectorId) {
      throw new PosternError(
        'CONNECTOR_REFUSED',
        'the attachment is not, or no longer, one of this connector',
        {
          hint: 'attach again',
        },
      )
    }
    attachment.pool.offer(end)
  } catch (error) {
    const { code, message, hint } = toPublicError(error, clientAddress)
    // everyday where an attachment has just gone, so not for everybody's log
    parts.log.debug('connector.data_refused', { clientAddress, connectorId, code })
    await parts.audit.record({ type: 'connector.refused', code, connectorId, clientAddress }).catch(() => {})
    end.abort(new PosternError(code, message, { hint }))
  }
}

/** Whatever follows hello in the same breath breaks the protocol too: a waiting connection says nothing. */
function readHello(end: FramedEnd, timeoutMs: number): Promise<HelloFrame> {
  return new Promise((resolve, reject) => {
    let isDone = false
    const settle = (act: () => void) => {
      clearTimeout(timer)
      isDone = true
      act()
    }
    const fail = (why: string) => {
      const error = new PosternError('PROTOCOL_INVALID', `the data connection ${why}`)
      if (isDone) end.abort(error)
      else settle(() => reject(error))
    }
    const timer = setTimeout(() => fail('did not say hello in time'), timeoutMs)
    end.receive({
      chunk: () => fail('sent bytes where hello was expected'),
      end: () => fail('ended where hello was expected'),
      drain: () => {},
      cut: (error) => settle(() => reject(error)),
      control(type, body) {
        end.pause()
        if (type !== 'hello' || isDone) return fail(`said ${type} where hello was expected`)
        try {
          const hello = readFrameBody(HelloFrame, body, 'hello')
          settle(() => resolve(hello))
        } catch (error) {
          settle(() => reject(error))
        }
      },
    })
    end.resume()
  })
}
