// Node as the backend of our gateway: `http2.performServerHandshake` on a TLS socket that Node dialled.
import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { once } from 'node:events'
import http2 from 'node:http2'
import tls from 'node:tls'
import { ask, check, connect, finish, gateway, h1, keyOf, newToken, selfSigned, stop, until } from './lib.mjs'

const answer = (stream, headers) => {
  stream.on('error', () => {})
  switch (headers[':path']) {
    case '/echo':
      stream.respond({ ':status': 200, 'content-type': 'application/octet-stream' })
      stream.pipe(stream)
      break
    case '/trailers': {
      let seen = 'none'
      stream.on('trailers', trailers => { seen = trailers['x-sum'] ?? 'other' })
      stream.resume().on('end', () => {
        stream.respond({ ':status': 200, trailer: 'x-seen' }, { waitForTrailers: true })
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-seen': seen }))
        stream.end('with trailers')
      })
      break
    }
    case '/never':
      break
    default:
      stream.respond({ ':status': 200, 'x-authority': headers[':authority'] })
      stream.end(`${headers[':method']} ${headers[':path']}`)
  }
}

/** Dials, and answers on that connection from then on. */
const backend = async (port, credentials = {}, label = '2ptth') => {
  const socket = tls.connect({ host: 'localhost', port, servername: 'localhost', ALPNProtocols: [label], rejectUnauthorized: false, ...credentials })
  // An alert after the handshake is all that Node tells of: it never closes a socket that HTTP/2 took over.
  const ended = new Promise(resolve => socket.on('error', err => resolve(err.message)).on('close', () => resolve('closed')))
  await once(socket, 'secureConnect')
  assert.equal(socket.alpnProtocol, label)
  const session = http2.performServerHandshake(socket)
  session.on('stream', answer)
  session.on('error', () => {})
  return { session, ended }
}

const credentials = token => {
  const key = keyOf(token)
  return { key: key.export({ format: 'pem', type: 'pkcs8' }), cert: selfSigned(key, 'node.0') }
}

const reachable = port => until(async () => (await h1(port)).status === 200, 'a request through the backend')

const exchanges = async port => {
  const megabyte = crypto.randomBytes(1 << 20)
  const visitor = await connect(port)
  const ways = {
    'HTTP/1.1': options => h1(port, options),
    'HTTP/2': options => ask(visitor, options),
  }
  for (const [version, request] of Object.entries(ways)) {
    await check(`${version}: GET`, async () => {
      const { status, headers, body } = await request({ path: '/a%2Fb?x=%20' })
      assert.equal(status, 200)
      assert.equal(headers['x-authority'], `localhost:${port}`)
      assert.equal(String(body), 'GET /a%2Fb?x=%20')
    })
    await check(`${version}: POST echoes 1 MiB`, async () => {
      const { status, body } = await request({ method: 'POST', path: '/echo', body: megabyte })
      assert.equal(status, 200)
      assert.ok(body.equals(megabyte))
    })
    await check(`${version}: trailers both ways`, async () => {
      const { body, trailers } = await request({
        method: 'POST', path: '/trailers', body: 'x', trailers: { 'x-sum': '42' },
        headers: version === 'HTTP/2' ? { te: 'trailers' } : { te: 'trailers', connection: 'te' },
      })
      assert.equal(String(body), 'with trailers')
      assert.equal(trailers['x-seen'], '42')
    })
    await check(`${version}: 200 requests in parallel`, async () => {
      const responses = await Promise.all(Array.from({ length: 200 }, (_, i) => request({ path: `/${i}` })))
      responses.forEach(({ body }, i) => assert.equal(String(body), `GET /${i}`))
    })
  }
  visitor.close()
}

// Node's nghttp2 ends a connection on which it sees more than 1,000 resets in a burst, or 33 a second for long.
const resets = async (port, session) => {
  await check('100 visitors who reset 50 requests each end no tunnel', async () => {
    for (let round = 0; round < 10; round++) {
      await Promise.all(Array.from({ length: 10 }, async () => {
        const visitor = await connect(port)
        for (let i = 0; i < 50; i++) {
          const stream = visitor.request({ ':path': '/never' })
          stream.on('error', () => {})
          stream.close(http2.constants.NGHTTP2_CANCEL)
        }
        // The answer to a PING says that the gateway has read them all, or has had enough of this visitor.
        await new Promise(resolve => {
          visitor.once('close', resolve)
          try { visitor.ping(resolve) } catch { resolve() }
        })
        visitor.destroy()
      }))
    }
    assert.equal((await h1(port)).status, 200)
    assert.ok(!session.closed && !session.destroyed, 'the tunnel ended')
  }, 60)
}

{
  const { child, port } = await gateway('--self-signed', '--open', '--listen', '127.0.0.1:0')
  await check('open gateway: no backend yet, 502', async () => {
    const { status, body } = await h1(port)
    assert.equal(status, 502)
    assert.match(String(body), /There is no upstream available/)
  })
  await check('open gateway: Node is the backend, without a certificate', async () => {
    const { session } = await backend(port)
    await reachable(port)
    await exchanges(port)
    await resets(port, session)
    session.destroy()
  }, 200)
  await check('open gateway: the backend left, 502', () => until(async () => (await h1(port)).status === 502, '502'))
  await stop(child)
}

{
  const { child, token, port } = await gateway('--self-signed', '--listen', '127.0.0.1:0')
  const refused = (sentence, alert, credentials) => check(sentence, async () => {
    assert.match(await (await backend(port, credentials)).ended, alert)
    assert.equal((await h1(port)).status, 502)
  })
  await refused('with a token: no certificate, refused', /alert certificate required/)
  await refused('with a token: another key, refused', /alert access denied/, credentials(newToken()))
  for (const label of ['2ptth', 'rh2', 'ph2']) {
    await check(`with a token: Node is the backend by its key, ALPN ${label}`, async () => {
      const { session, ended } = await backend(port, credentials(token), label)
      await reachable(port)
      if (label === '2ptth') await exchanges(port)
      session.destroy()
      await ended
    }, 100)
  }
  await stop(child)
}

await finish()
