// Opens a WebSocket over TLS, sends `hello` and a message of 100 kB, and prints what came back of them.
//   node websocket-visitor.mjs https://localhost:PORT/path
import https from 'node:https'
import crypto from 'node:crypto'
import { frame, parse } from './websocket.mjs'

setTimeout(() => { console.log('nothing within 20 s'); process.exit(1) }, 20000).unref()
const url = new URL(process.argv[2])
const request = https.get(url, {
  rejectUnauthorized: false,
  ALPNProtocols: ['http/1.1'],
  headers: {
    Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'),
  },
})
request.on('response', response => { console.log(`refused: ${response.statusCode}`); process.exit(1) })
request.on('upgrade', (response, socket, head) => {
  const mask = crypto.randomBytes(4)
  const long = Buffer.alloc(100_000, 'x')
  let unread = head
  const got = []
  socket.on('data', data => {
    const { frames, rest } = parse(Buffer.concat([unread, data]))
    unread = rest
    for (const { opcode, payload } of frames) {
      if (opcode === 8) { console.log(got.join(' ')); process.exit(0) }
      got.push(payload.equals(long) ? 'long' : String(payload).slice(0, 99))
      if (got.length === 2) socket.write(frame(8, Buffer.from([3, 232]), mask))
    }
  })
  socket.write(frame(1, Buffer.from('hello'), mask))
  socket.write(frame(2, long, mask))
})
