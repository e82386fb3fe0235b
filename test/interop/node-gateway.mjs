// Node as the gateway of our client: TLS accepted with ALPN `2ptth`, then `http2.connect` on that same socket.
import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import tls from 'node:tls'
import { ask, check, finish, issued, keyOf, newToken, start, stop, within } from './lib.mjs'
import { parse, frame } from './websocket.mjs'

const { ca, caFile, cert, key } = issued()
const pin = `sha256:${crypto.createHash('sha256').update(new crypto.X509Certificate(cert).raw).digest('hex')}`

/** Accepts backends; `next()` is the next tunnel: `{ socket, session }`. */
const listen = async () => {
  const waiting = []
  const arrived = []
  const server = tls.createServer({ cert: cert + ca, key, ALPNProtocols: ['2ptth'], requestCert: true, rejectUnauthorized: false }, socket => {
    socket.on('error', () => {})
    const session = http2.connect('https://localhost', { createConnection: () => socket })
    session.on('error', () => {})
    const tunnel = { socket, session, publicKey: socket.getPeerX509Certificate()?.publicKey }
    waiting.length ? waiting.shift()(tunnel) : arrived.push(tunnel)
  })
  server.on('tlsClientError', () => {})
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    port: server.address().port,
    next: () => within(10, arrived.length ? Promise.resolve(arrived.shift()) : new Promise(resolve => waiting.push(resolve)), 'a tunnel'),
    close: () => server.close(),
  }
}

const origin = http.createServer((request, response) => {
  switch (request.url) {
    case '/early':
      response.writeEarlyHints({ link: '</style.css>; rel=preload' })
      response.end('late')
      break
    case '/trailers': {
      request.resume().on('end', () => {
        response.writeHead(200, { trailer: 'x-seen' })
        response.write('with trailers')
        response.addTrailers({ 'x-seen': request.trailers['x-sum'] ?? 'none' })
        response.end()
      })
      break
    }
    case '/echo':
      request.pipe(response)
      break
    default:
      response.setHeader('x-host', request.headers.host)
      response.end(`${request.method} ${request.url}`)
  }
})
await once(origin.listen(0, '127.0.0.1'), 'listening')
const originAddress = `http://127.0.0.1:${origin.address().port}`

/** A WebSocket over extended CONNECT (RFC 8441): sends `payload`, returns the first frame that comes back. */
const webSocket = (session, payload) => new Promise((resolve, reject) => {
  const stream = session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':path': '/', ':authority': 'localhost', 'sec-websocket-version': '13',
  })
  let buffer = Buffer.alloc(0)
  stream.on('error', reject)
  stream.on('response', headers => {
    if (headers[':status'] !== 200) return reject(new Error(`status ${headers[':status']}`))
    stream.write(frame(2, payload, crypto.randomBytes(4)))
  })
  stream.on('data', data => {
    buffer = Buffer.concat([buffer, data])
    const { frames } = parse(buffer)
    if (!frames.length) return
    stream.close()
    resolve(frames[0])
  })
})

const megabyte = crypto.randomBytes(1 << 20)
const gateway = await listen()
const address = `localhost:${gateway.port}`
const authority = { ':authority': address }

for (const how of [['--insecure'], ['--pin', pin], ['--ca', caFile]]) {
  const name = how[0]
  const token = newToken()
  const client = start('2ptth-client', ['--tunnels', '1', ...how, address, originAddress], { TOKEN: token })
  let tunnel
  await check(`${name}: the client dials in`, async () => {
    tunnel = await gateway.next()
    assert.equal(tunnel.socket.alpnProtocol, '2ptth')
  })
  if (!tunnel) continue
  const { session } = tunnel
  await check(`${name}: its certificate is of the token's key`, async () => {
    assert.ok(tunnel.publicKey.equals(crypto.createPublicKey(keyOf(token))))
  })
  await check(`${name}: GET`, async () => {
    const { status, headers, body } = await ask(session, { path: '/a%2Fb?x=%20', headers: authority })
    assert.equal(status, 200)
    assert.equal(headers['x-host'], address)
    assert.equal(String(body), 'GET /a%2Fb?x=%20')
  })
  await check(`${name}: POST echoes 1 MiB`, async () => {
    const { body } = await ask(session, { method: 'POST', path: '/echo', body: megabyte, headers: authority })
    assert.ok(body.equals(megabyte))
  })
  await check(`${name}: early hints`, async () => {
    const { body, informational } = await ask(session, { path: '/early', headers: authority })
    assert.equal(informational[0]?.[':status'], 103)
    assert.equal(informational[0].link, '</style.css>; rel=preload')
    assert.equal(String(body), 'late')
  })
  await check(`${name}: trailers both ways`, async () => {
    const { trailers } = await ask(session, {
      method: 'POST', path: '/trailers', body: 'x', trailers: { 'x-sum': '42' }, headers: { ...authority, te: 'trailers', trailer: 'x-sum' },
    })
    assert.equal(trailers['x-seen'], '42')
  })
  if (name === '--ca') {
    await check(`${name}: 421 for a host that the certificate doesn't cover`, async () => {
      assert.equal((await ask(session, { headers: { ':authority': 'elsewhere.test' } })).status, 421)
    })
  }
  if (name === '--insecure') {
    await check('after GOAWAY the client dials again', async () => {
      session.close()
      tunnel = await gateway.next()
      assert.equal((await ask(tunnel.session, { headers: authority })).status, 200)
    })
  }
  await stop(client)
  tunnel.session.destroy()
}

{
  const client = start('2ptth-client', ['--tunnels', '1', '--insecure', address], { TOKEN: newToken() })
  const { session } = await gateway.next()
  await check('the demo origin: GET', async () => {
    assert.match(String((await ask(session, { headers: authority })).body), /Transmission is possible!/)
  })
  await check('the demo origin: POST echoes', async () => {
    assert.ok((await ask(session, { method: 'POST', body: megabyte, headers: authority })).body.equals(megabyte))
  })
  await check('the demo origin: a WebSocket by extended CONNECT echoes 1 MiB', async () => {
    if (!session.remoteSettings?.enableConnectProtocol) await once(session, 'remoteSettings')
    assert.ok(session.remoteSettings.enableConnectProtocol, 'not offered')
    const { opcode, payload } = await webSocket(session, megabyte)
    assert.equal(opcode, 2)
    assert.ok(payload.equals(megabyte))
  })
  await stop(client)
  session.destroy()
}

await check('a gateway that --pin doesn\'t know is given up before HTTP begins', async () => {
  const client = start('2ptth-client', ['--tunnels', '1', '--pin', `sha256:${'0'.repeat(64)}`, address], { TOKEN: newToken() })
  await within(10, new Promise(resolve => {
    client.stderr.on('data', () => { if (/pin/i.test(client.log)) resolve() })
    client.ended.then(resolve)
  }), 'a word about the pin')
  await stop(client)
})

origin.close()
gateway.close()
await finish()
