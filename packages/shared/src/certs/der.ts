/** The few lines of DER (X.690) that it takes to write a request, a key or a list: the library that could do it costs 80 ms
 *  to load. */
export function der(tag: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(tag), derLength(body.length), body])
}

/** @param value not negative */
export function derInteger(value: number): Buffer {
  const hex = value.toString(16)
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  return bytes[0]! & 0x80 ? der(0x02, Buffer.of(0), bytes) : der(0x02, bytes)
}

export function toPem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** Lengths up to 65,535 (§8.1.3). */
function derLength(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length)
  if (length < 0x100) return Buffer.of(0x81, length)
  return Buffer.of(0x82, length >> 8, length & 0xff)
}
