import { PosternError } from '@postern/shared/errors'
import { crlToPem } from '../ca/crl.ts'
import { CRL_KINDS, openCrl } from '../revocation/crl.ts'
import type { ApiHandler, ApiParts } from './parts.ts'

/** `GET /v1/crl/client.crl` (DER), `client.pem`, and the same of connectors: without a session, for programs that check
 *  certificates themselves. The address stays, whatever CA signs. */
export function showCrl(parts: ApiParts): ApiHandler {
  const lists = new Map<string, () => Promise<Buffer>>(
    CRL_KINDS.map((kind) => [kind, openCrl(parts.authorities[kind], kind, parts)]),
  )
  return async (c) => {
    const [kind = '', format = ''] = (c.req.param('file') ?? '').split(/\.(?=[^.]*$)/)
    const readCrl = lists.get(kind)
    if (!readCrl || (format !== 'crl' && format !== 'pem')) {
      throw new PosternError('NOT_FOUND', 'there is no such list of revoked certificates', {
        hint: `there are ${CRL_KINDS.map((kind) => `${kind}.crl and ${kind}.pem`).join(', ')}`,
      })
    }
    const der = await readCrl()
    c.header('Content-Type', format === 'crl' ? 'application/pkix-crl' : 'application/x-pem-file')
    return c.body(format === 'crl' ? new Uint8Array(der) : crlToPem(der))
  }
}
