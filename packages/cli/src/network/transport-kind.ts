import { PosternError } from '@postern/shared/errors'
import { readCaFile } from '../ca-file.ts'

/** Whether TLS with the edge travels inside a WebSocket: then something in front of the edge ends the outer TLS, and answers
 *  in the edge's name with a certificate of its own.
 *  @throws USAGE_INVALID */
export function usesWebSocket(): boolean {
  const kind = process.env.POSTERN_TRANSPORT || 'tls'
  if (kind === 'tls' || kind === 'ws') return kind === 'ws'
  throw new PosternError('USAGE_INVALID', `there is no transport ${JSON.stringify(kind)}`, {
    hint: 'the transport is tls or ws: --transport, POSTERN_TRANSPORT',
  })
}

/** PEM of whom to trust for the outer TLS; undefined for the public CAs.
 *  @throws USAGE_INVALID */
export function outerCa(): string | undefined {
  const file = process.env.POSTERN_TRANSPORT_CA
  return file ? readCaFile(file) : undefined
}
