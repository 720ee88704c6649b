import type { IncomingMessage } from 'node:http'
import { PosternError, toPosternError } from '@postern/shared/errors'
import type { Context } from 'hono'
import * as v from 'valibot'
import type { ApiEnv } from './parts.ts'

/** Enough for an allow-list of 10,000 entries. */
const MAX_BODY_BYTES = 1024 * 1024

/** Reads a JSON body with its schema.
 *  @throws REQUEST_INVALID names every member that is wrong · REQUEST_TOO_LARGE */
export async function readBody<S extends v.GenericSchema>(
  c: Context<ApiEnv>,
  schema: S,
): Promise<v.InferOutput<S>> {
  const text = await readText(c.env.incoming, MAX_BODY_BYTES)
  return readValue(schema, parseJson(text))
}

/** The request ends the connection when it is too large, but the answer still gets out.
 *  @throws REQUEST_TOO_LARGE · REQUEST_INVALID it ended early */
export async function readText(incoming: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
      bytes += chunk.length
      if (bytes > maxBytes) {
        throw new PosternError('REQUEST_TOO_LARGE', `a request body may have ${maxBytes} bytes here`)
      }
      chunks.push(chunk)
    }
  } catch (error) {
    throw toPosternError(error, 'REQUEST_INVALID', 'the request ended before its body was whole')
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new PosternError('REQUEST_INVALID', 'the request body is not JSON', { cause })
  }
}

/** @throws REQUEST_INVALID */
export function readValue<S extends v.GenericSchema>(schema: S, value: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const problems = result.issues
    .slice(0, 10)
    .map((issue) => `${v.getDotPath(issue) ?? 'body'}: ${issue.message}`)
  throw new PosternError('REQUEST_INVALID', `the request is malformed: ${problems.join('; ')}`)
}
