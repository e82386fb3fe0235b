// WebSocket frames (RFC 6455 §5), as much of them as the scripts need: no fragments, no extensions.
import crypto from 'node:crypto'

export const accept = key => crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')

const mask = (payload, key) => payload.map((byte, i) => byte ^ key[i & 3])

/** One frame; with `key`, 4 bytes, masked as a client must. */
export const frame = (opcode, payload, key) => {
  const masked = key ? 0x80 : 0
  let head
  if (payload.length < 126) {
    head = Buffer.from([0x80 | opcode, masked | payload.length])
  } else if (payload.length < 65536) {
    head = Buffer.from([0x80 | opcode, masked | 126, payload.length >> 8, payload.length & 255])
  } else {
    head = Buffer.alloc(10)
    head[0] = 0x80 | opcode
    head[1] = masked | 127
    head.writeBigUInt64BE(BigInt(payload.length), 2)
  }
  return Buffer.concat(key ? [head, key, mask(payload, key)] : [head, payload])
}

/** The whole frames at the beginning of `buffer`, unmasked, and what is left of it. */
export const parse = buffer => {
  const frames = []
  for (;;) {
    if (buffer.length < 2) break
    let length = buffer[1] & 127
    let at = 2
    if (length === 126) at = 4
    if (length === 127) at = 10
    if (buffer.length < at) break
    if (at === 4) length = buffer.readUInt16BE(2)
    if (at === 10) length = Number(buffer.readBigUInt64BE(2))
    const key = buffer[1] & 0x80 ? buffer.subarray(at, at + 4) : undefined
    if (key) at += 4
    if (buffer.length < at + length) break
    const payload = buffer.subarray(at, at + length)
    frames.push({ opcode: buffer[0] & 15, final: !!(buffer[0] & 0x80), payload: key ? mask(payload, key) : payload })
    buffer = buffer.subarray(at + length)
  }
  return { frames, rest: buffer }
}
