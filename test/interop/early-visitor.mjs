// Node's HTTP/2 client, whose uploads to URL/PATH are answered before their end: early-visitor.mjs URL PATH STATUS.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http2 from 'node:http2'

const [url, path, status] = process.argv.slice(2)
const session = http2.connect(url, { rejectUnauthorized: false })
for (const size of [3, 1 << 20]) {
  const began = performance.now()
  const stream = session.request({ ':method': 'PUT', ':path': path })
  stream.on('error', () => {}).write(Buffer.alloc(size))
  const [headers] = await once(stream, 'response')
  let body = ''
  for await (const chunk of stream.setEncoding('utf8')) body += chunk
  assert.equal(headers[':status'], Number(status))
  assert.match(body, /said the origin|no upstream/)
  if (!stream.closed) await once(stream, 'close')
  assert.equal(stream.rstCode, http2.constants.NGHTTP2_NO_ERROR)
  assert.ok(performance.now() - began < 1000, `${size} bytes: ${performance.now() - began} ms`)
}
session.close()
