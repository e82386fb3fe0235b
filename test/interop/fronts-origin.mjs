// An origin for fronts.sh and recipes.sh: prints its port, then answers.
//   /fields  the request's head as JSON     /sum  SHA-256 of the body     /big  10 MiB    /slow  the same within 3 s
//   /socket  a WebSocket that gets back what it sends; anything else: its own NAME (an argument) and the request line
import crypto from 'node:crypto'
import http from 'node:http'
import { accept, frame, parse } from './websocket.mjs'

const name = process.argv[2] ?? 'origin'
const big = Buffer.alloc(10 << 20, crypto.createHash('sha512').update('2ptth').digest())

const origin = http.createServer((request, response) => {
  switch (request.url) {
    case '/fields':
      response.end(JSON.stringify(request.headers))
      break
    case '/sum': {
      const hash = crypto.createHash('sha256')
      request.on('data', data => hash.update(data)).on('end', () => response.end(hash.digest('hex')))
      break
    }
    case '/big':
      response.end(big)
      break
    case '/slow': {
      const pieces = 30
      const size = big.length / pieces | 0
      const send = n => {
        if (n === pieces) return response.end(big.subarray(n * size))
        response.write(big.subarray(n * size, (n + 1) * size))
        setTimeout(send, 100, n + 1)
      }
      send(0)
      break
    }
    default:
      response.end(`${name}: ${request.method} ${request.url}\n`)
  }
})
origin.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {})
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept(request.headers['sec-websocket-key'])}\r\n\r\n`)
  let unread = head
  const take = data => {
    const { frames, rest } = parse(Buffer.concat([unread, data]))
    unread = rest
    for (const { opcode, payload } of frames) {
      socket.write(frame(opcode, payload))
      if (opcode === 8) socket.end()
    }
  }
  take(Buffer.alloc(0))
  socket.on('data', take)
})
origin.listen(0, '127.0.0.1', () => console.log(origin.address().port))
