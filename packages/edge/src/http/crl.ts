import { PosternError } from '@postern/shared/errors'
import type { Authority } from '../ca/authorities.ts'
import { crlToPem } from '../ca/crl.ts'
import { CRL_KINDS, type CrlKind, openCrls } from '../revocation/crl.ts'
import type { ApiHandler, ApiParts } from './parts.ts'

/** `GET /v1/crl/client.crl` (DER), `client.pem`, and the same of connectors: without a session, for programs that check
 *  certificates themselves. The address stays, whatever CA signs; while a new one takes over, PEM has the lists of both, and DER
 *  the one of the CA that signs. */
export function showCrl(parts: ApiParts): ApiHandler {
  const lists = new Map<string, () => Promise<Buffer[]>>(
    CRL_KINDS.map((kind) => [kind, openCrls(() => newestFirst(kind, parts.authorities), kind, parts)]),
  )
  return async (c) => {
    const [kind = '', format = ''] = (c.req.param('file') ?? '').split(/\.(?=[^.]*$)/)
    const readCrls = lists.get(kind)
    if (!readCrls || (format !== 'crl' && format !== 'pem')) {
      throw new PosternError('NOT_FOUND', 'there is no such list of revoked certificates', {
        hint: `there are ${CRL_KINDS.map((kind) => `${kind}.crl and ${kind}.pem`).join(', ')}`,
      })
    }
    const crls = await readCrls()
    c.header('Content-Type', format === 'crl' ? 'application/pkix-crl' : 'application/x-pem-file')
    return c.body(format === 'crl' ? new Uint8Array(crls[0]!) : crls.map(crlToPem).join(''))
  }
}

function newestFirst(kind: CrlKind, authorities: ApiParts['authorities']): Authority[] {
  const signing = authorities[kind]
  return [signing, ...authorities.trusted(kind).filter((authority) => authority !== signing)]
}
