// The origin of chromium.html. Prints its port; after that a line for each check that the page reports, and ends with the page.
import crypto from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { accept, frame, parse } from './websocket.mjs'

const page = fs.readFileSync(path.join(import.meta.dirname, 'chromium.html'))

let failed = 0
const judge = verdict => {
  if (verdict === 'end') process.exit(failed ? 1 : 0)
  const { ok, sentence, detail } = verdict
  console.log(ok ? `ok - ${sentence}` : `not ok - ${sentence}: ${detail}`)
  if (!ok) failed++
}

const origin = http.createServer((request, response) => {
  switch (request.url.replace(/\?.*/, '')) {
    case '/':
      response.setHeader('content-type', 'text/html').end(page)
      break
    case '/plain':
      response.end('plain')
      break
    case '/sum': {
      const hash = crypto.createHash('sha256')
      request.on('data', data => hash.update(data)).on('end', () => response.end(hash.digest('hex')))
      break
    }
    case '/events': {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const timer = setInterval(() => response.write(`data: ${Date.now()}\n\n`), 50)
      response.on('close', () => clearInterval(timer))
      break
    }
    case '/verdict': {
      const chunks = []
      request.on('data', data => chunks.push(data)).on('end', () => {
        response.end(() => judge(JSON.parse(Buffer.concat(chunks))))
      })
      break
    }
    default:
      response.writeHead(404).end()
  }
})

origin.on('upgrade', (request, socket) => {
  socket.on('error', () => {})
  if (request.url === '/refused') return socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno')
  socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n' +
    `sec-websocket-accept: ${accept(request.headers['sec-websocket-key'])}\r\nsec-websocket-protocol: interop\r\n\r\n`)
  let unread = Buffer.alloc(0)
  let message = []
  socket.on('data', data => {
    const { frames, rest } = parse(Buffer.concat([unread, data]))
    unread = rest
    for (const { opcode, final, payload } of frames) {
      if (opcode === 8) return socket.end()
      if (opcode === 9) socket.write(frame(10, payload))
      if (opcode > 2) continue
      message.push({ opcode, payload })
      if (!final) continue
      const whole = Buffer.concat(message.map(({ payload }) => payload))
      const type = message[0].opcode
      message = []
      if (String(whole.subarray(0, 6)) === 'close') {
        socket.write(frame(8, Buffer.concat([Buffer.from([4242 >> 8, 4242 & 255]), Buffer.from('as asked')])))
      } else {
        socket.write(frame(type, whole))
      }
    }
  })
})

origin.listen(0, '127.0.0.1', () => console.log(origin.address().port))
setTimeout(() => {
  console.log('not ok - the page came to its end within 150 s')
  process.exit(1)
}, 150_000)
