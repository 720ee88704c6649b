import https from 'node:https'
import { PosternError } from '@postern/shared/errors'
import { lookupHost } from '@postern/shared/lookup-host'
import { isUntrusted } from '../untrusted-certificate.ts'
import type { AcmeAnswer } from './messages.ts'

/** HTTPS to the ACME server: with a CA of its own where one is named, with limits of time and size, without redirects. */

const ANSWER_TIMEOUT_MS = 30_000
const MAX_ANSWER_BYTES = 512 * 1024

/** @throws ACME_UNREACHABLE · ACME_PROTOCOL_INVALID when the answer is too large */
export async function requestAcme(
  url: string,
  wanted: { method: 'GET' | 'HEAD' | 'POST'; body?: string; caPem?: string | undefined; signal: AbortSignal },
): Promise<AcmeAnswer> {
  const { host } = new URL(url)
  const signal = AbortSignal.any([wanted.signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)])
  try {
    return await exchange(url, { ...wanted, signal })
  } catch (cause) {
    if (cause instanceof PosternError) throw cause
    const { message, code } = cause as NodeJS.ErrnoException
    const isOfUnknownCa = isUntrusted(code ?? '')
    const reason = signal.aborted
      ? 'it does not answer'
      : isOfUnknownCa
        ? 'its certificate is of no CA that is known here'
        : (REASONS[code ?? ''] ?? message)
    throw new PosternError('ACME_UNREACHABLE', `cannot reach the ACME server ${host}: ${reason}`, {
      cause,
      ...(isOfUnknownCa ? { hint: hintForTrust(wanted.caPem) } : {}),
    })
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'it closed the connection',
  ENOTFOUND: 'its name is unknown',
  EAI_AGAIN: 'its name cannot be looked up now',
  EPROTO: 'it speaks no TLS, or none that is understood here',
}

function hintForTrust(caPem: string | undefined): string {
  return caPem === undefined
    ? "with a CA of your company, name who signs its server's certificate: tls.acme.ca_file"
    : 'tls.acme.ca_file has another CA than the one that signs its certificate'
}

function exchange(
  url: string,
  { method, body, caPem, signal }: Parameters<typeof requestAcme>[1],
): Promise<AcmeAnswer> {
  return new Promise((resolve, reject) => {
    const request = https.request(url, {
      method,
      signal,
      agent: false, // a few requests a month
      lookup: lookupHost,
      minVersion: 'TLSv1.2',
      // said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would otherwise switch it off
      rejectUnauthorized: true,
      headers: {
        'user-agent': 'postern-edge',
        ...(body === undefined ? {} : { 'content-type': 'application/jose+json' }),
      },
      ...(caPem === undefined ? {} : { ca: caPem }),
    })
    request.on('error', reject)
    request.on('response', async (response) => {
      try {
        const chunks: Buffer[] = []
        let bytes = 0
        for await (const chunk of response as AsyncIterable<Buffer>) {
          bytes += chunk.length
          if (bytes > MAX_ANSWER_BYTES) {
            throw new PosternError('ACME_PROTOCOL_INVALID', 'an answer of the ACME server is too large')
          }
          chunks.push(chunk)
        }
        const header = (name: string) => {
          const value = response.headers[name]
          return Array.isArray(value) ? value[0] : value
        }
        resolve({ status: response.statusCode ?? 0, header, body: Buffer.concat(chunks) })
      } catch (error) {
        request.destroy()
        reject(error)
      }
    })
    request.end(body)
  })
}
