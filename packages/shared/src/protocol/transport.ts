/** `--transport ws`: one connection of TLS inside a WebSocket, for where nothing else passes. What stands in between ends the
 *  outer TLS and sees the inner one as bytes. docs/protocol.md has it in words. */

export const TRANSPORT_PATH = '/v1/transport'
export const TRANSPORT_SUBPROTOCOL = 'postern-transport.v1'
/** Of one message. A longer one ends the connection. */
export const MAX_TRANSPORT_MESSAGE_BYTES: number = 64 * 1024
/** The text message after the last bytes of a direction: a WebSocket has no half-close of its own. */
export const TRANSPORT_END = 'end'
