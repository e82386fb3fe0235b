// An origin for curl.sh: prints its port, then answers.
//   /status/N  that status        /seen  the request line as it arrived     /sum  SHA-256 of the body
//   /early/N   that status before the body was read    /gzip  compressed, whatever was asked for
import crypto from 'node:crypto'
import http from 'node:http'
import zlib from 'node:zlib'

const origin = http.createServer((request, response) => {
  const [, first, second] = request.url.split('/')
  switch (first) {
    case 'status':
      response.writeHead(Number(second), second[0] === '3' ? { location: 'https://elsewhere.test/' } : {})
      response.end([204, 205, 304].includes(Number(second)) ? undefined : `${second}\n`)
      break
    case 'sum': {
      const hash = crypto.createHash('sha256')
      request.on('data', data => hash.update(data)).on('end', () => response.end(hash.digest('hex')))
      break
    }
    case 'early':
      response.writeHead(Number(second), { connection: 'close' }).end('early, said the origin\n')
      break
    case 'gzip':
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(zlib.gzipSync('compressed\n'))
      break
    default:
      response.end(`${request.method} ${request.url}\n`)
  }
})
origin.listen(0, '127.0.0.1', () => console.log(origin.address().port))
