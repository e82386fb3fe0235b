// Holds a WebSocket over TLS open: sends a message when the one before came back, until a file exists. Prints `open`,
// and in the end how many came back.
//   node acme-visitor.mjs https://localhost:PORT/path FILE
import crypto from 'node:crypto'
import fs from 'node:fs'
import https from 'node:https'
import { frame, parse } from './websocket.mjs'

const request = https.get(process.argv[2], {
  rejectUnauthorized: false,
  ALPNProtocols: ['http/1.1'],
  headers: {
    Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64'),
  },
})
const fail = why => { console.log(why); process.exit(1) }
request.on('response', response => fail(`refused: ${response.statusCode}`))
request.on('upgrade', (response, socket, head) => {
  const mask = crypto.randomBytes(4)
  let [unread, sent] = [head, 0]
  const send = () => socket.write(frame(1, Buffer.from(String(++sent)), mask))
  socket.on('close', () => fail(`closed after ${sent} messages`))
  socket.on('data', data => {
    const { frames, rest } = parse(Buffer.concat([unread, data]))
    unread = rest
    for (const { payload } of frames) {
      if (String(payload) !== String(sent)) fail(`${payload} came back for ${sent}`)
      if (fs.existsSync(process.argv[3])) {
        console.log(`${sent} messages came back`)
        process.exit(0)
      }
      setTimeout(send, 50)
    }
  })
  console.log('open')
  send()
})
