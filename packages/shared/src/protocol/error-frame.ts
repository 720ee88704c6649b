import { fromPublicError, PosternError } from '../errors.ts'

/** Reads the body of an error frame: `ErrorFrame` of control-frames.ts, checked by hand. Every `postern client tls`
 *  that starts loads this, and the schema library would be a good part of all it loads.
 *  @throws PROTOCOL_INVALID */
export function readErrorFrame(body: unknown): PosternError {
  const { code, message, hint, flowId } = (body ?? {}) as Record<string, unknown>
  const isSaid = isOptionalText(message) && isOptionalText(hint)
  if (!isId(code) || !isSaid || !(flowId === undefined || isId(flowId))) {
    throw new PosternError('PROTOCOL_INVALID', 'the error frame is malformed')
  }
  const said = fromPublicError(
    { code, message: message ?? 'the other side ended the flow', hint },
    'FLOW_CUT',
  )
  // a connection that ends without a word is FLOW_CUT too, and may have another reason
  return new PosternError(said.code, said.message, { hint: said.hint, details: { saidByPeer: true, flowId } })
}

const MAX_TEXT_LENGTH = 2_000

function isOptionalText(value: unknown): value is string | undefined {
  return value === undefined || isText(value, MAX_TEXT_LENGTH)
}

function isId(value: unknown): value is string {
  return isText(value, 128) && value !== ''
}

function isText(value: unknown, maxLength: number): value is string {
  return typeof value === 'string' && value.length <= maxLength
}
