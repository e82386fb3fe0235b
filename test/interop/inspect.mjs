// The inspector's page in headless Chromium: list, detail, search, replay, HAR, WebSocket, much traffic, keys, sizes.
//   SHOTS=dir: takes its pictures there.
import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import path from 'node:path'
import zlib from 'node:zlib'
import { browser } from './cdp.mjs'
import { ask, check, connect, finish, gateway, h1, start, until, work } from './lib.mjs'
import { accept, frame, parse } from './websocket.mjs'

const seen = []
const answers = {
  '/gzip': ['gzip', zlib.gzipSync],
  '/br': ['br', zlib.brotliCompressSync],
  '/deflate': ['deflate', zlib.deflateSync],
}
const origin = http.createServer(async (request, response) => {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const body = Buffer.concat(chunks).toString('latin1')
  seen.push({ method: request.method, url: request.url, headers: request.headers, raw: request.rawHeaders, body })
  const [coding, pack] = answers[request.url] ?? []
  if (coding) {
    response.writeHead(200, { 'content-type': 'text/plain', 'content-encoding': coding })
    return response.end(pack(`decoded from ${coding}`))
  }
  if (request.url === '/xml') return response.writeHead(200, { 'content-type': 'application/xml' }).end('<a b="c"><d>e</d></a>')
  if (request.url === '/image') return response.writeHead(200, { 'content-type': 'image/png' }).end(Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64'))
  if (request.url === '/hostile') return response.writeHead(200, { 'content-type': 'text/html', 'x-odd': '<img src=x onerror=alert(1)>' }).end('<script>document.title="owned"</script>')
  if (request.url === '/early') response.writeEarlyHints({ link: '</a.css>; rel=preload' })
  if (request.url.startsWith('/hook') && !body.includes('"fixed"')) return response.writeHead(422, { 'content-type': 'application/json' }).end('{"error":"not fixed"}')
  response.writeHead(200, { 'content-type': 'application/json', 'set-cookie': 'session=hidden' })
  response.end(JSON.stringify({ url: request.url, got: body }))
})
origin.on('upgrade', (request, socket) => {
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept(request.headers['sec-websocket-key'])}\r\n\r\n`)
  let unread = Buffer.alloc(0)
  socket.on('data', data => {
    const { frames, rest } = parse(Buffer.concat([unread, data]))
    unread = rest
    for (const { opcode, payload } of frames) socket.write(frame(opcode, opcode === 8 ? payload : Buffer.from(`echo of ${payload}`)))
  })
  socket.on('error', () => {})
})
origin.listen(0, '127.0.0.1')
await once(origin, 'listening')

const gate = await gateway('--self-signed', '--listen', '127.0.0.1:0')
const pin = /sha256:\w+/.exec(gate.child.lines.join('\n'))[0]
const captured = path.join(work, 'captured')
const client = start('2ptth-client', ['--pin', pin, '--inspect-at', '0', '--redact', 'x-private', '--capture', captured, `127.0.0.1:${gate.port}`, `http://127.0.0.1:${origin.address().port}`], { TOKEN: gate.token })
const page = await until(() => client.lines.find(line => line.startsWith('inspect: '))?.slice(9), "the page's address")
const [address, key] = page.split('/#')
const api = (path, options = {}) => fetch(`${address}${path}`, { ...options, headers: { 'inspect-key': key, ...options.headers } })
await until(async () => (await h1(gate.port)).status === 200, 'a tunnel')
const session = await connect(gate.port)
const hook = { method: 'POST', path: '/hook?source=shop&source=2', headers: { 'content-type': 'application/json', 'content-length': 33, authorization: 'Bearer hidden', 'x-private': 'hidden' }, body: '{"order":[1,2,{"item":"broken"}]}' }
await ask(session, hook)

await check('the interface shows nothing without its key, to another page, or by another name', async () => {
  for (const headers of [{ 'inspect-key': '' }, { 'inspect-key': 'x'.repeat(32) }, { origin: 'http://evil.test' }]) {
    assert.equal((await api('/api/exchanges', { headers })).status, 403)
  }
  assert.equal((await api('/api/exchanges', { headers: { origin: address } })).status, 200)
  const named = await new Promise(resolve => http.get(`${address}/api/exchanges`, { headers: { host: 'evil.test', 'inspect-key': key } }, resolve))
  assert.equal(named.statusCode, 421)
  const policy = (await fetch(address)).headers
  assert.match(policy.get('content-security-policy'), /default-src 'none'/)
  assert.equal(policy.get('access-control-allow-origin'), null)
})

await check('a secret is masked, and shown on request alone', async () => {
  for (const path of ['/api/exchanges/2', '/har']) {
    assert.doesNotMatch(await (await api(path)).text(), /hidden/)
    assert.match(await (await api(`${path}?secrets=1`)).text(), /Bearer hidden/)
  }
})

await check('a captured request is sent again by the program, byte for byte', async () => {
  const file = await until(() => fs.existsSync(captured) && fs.readdirSync(captured).find(name => name.includes('POST-hook')), 'the file')
  assert.equal(fs.readFileSync(path.join(captured, file), 'utf8').split('\r\n\r\n')[1], hook.body)
  assert.equal(fs.statSync(path.join(captured, file)).mode & 0o777, 0o600)
  const first = { ...seen.at(-1) }
  const alone = path.join(work, 'alone')
  fs.mkdirSync(alone)
  fs.copyFileSync(path.join(captured, file), path.join(alone, file))
  fs.writeFileSync(path.join(work, 'all.har'), await (await api('/har?secrets=1')).text())
  const replay = async (from, ...more) => {
    const child = start('2ptth-client', ['replay', from, '--to', `http://127.0.0.1:${origin.address().port}`, ...more])
    return [(await child.ended)[0], child.lines.join('\n') + child.log]
  }
  const [code, said] = await replay(alone, '--expect-status', '422')
  assert.equal(code, 0, said)
  assert.match(said, /^ok {3}POST https:\/\/localhost:\d+\/hook\?source=shop&source=2 422$/m)
  assert.deepEqual(seen.at(-1), first)
  assert.equal((await replay(alone))[0], 1)
  const [harCode, harSaid] = await replay(path.join(work, 'all.har'))
  assert.equal(harCode, 1)
  assert.match(harSaid, /^2 requests, 1 failed$/m)
  assert.equal(seen.at(-1).headers.authorization, 'Bearer hidden')
  for (const [from, why] of [['/nowhere', /can't be read/], [file, /can't be read/], [path.join(alone, file), /no HAR file/]]) {
    const [refused, words] = await replay(from)
    assert.notEqual(refused, 0)
    assert.match(words, why)
  }
  assert.match((await replay(alone, '--expect-status', 'fine'))[1], /must be like/)
})

const tab = await browser(page)
const { evaluate, press, send, wait } = tab
const shot = async name => {
  if (!process.env.SHOTS) return
  const { data } = await send('Page.captureScreenshot', { format: 'png' })
  fs.writeFileSync(path.join(process.env.SHOTS, `${name}.png`), Buffer.from(data, 'base64'))
}
const size = (width, height) => send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false })
const rows = `[...document.querySelectorAll('#list li:not([hidden]) button')]`
const shows = text => `document.getElementById('detail').innerText.includes(${JSON.stringify(text)})`
const pick = text => evaluate(`${rows}.find(row => row.innerText.includes(${JSON.stringify(text)})).click()`)
const set = (id, value) => evaluate(`{ const it = document.getElementById('${id}'); it.value = ${JSON.stringify(value)}; it.dispatchEvent(new Event('input')) }`)
await size(1280, 800)

await check('what came before and what comes now is in the list', async () => {
  await wait(`${rows}.length >= 2 && ${rows}[0].innerText.includes('422')`, 'the list')
  await ask(session, { path: '/live' })
  await wait(`${rows}[0].innerText.includes('/live')`, 'the new request')
})

await check('a request shows its fields, its query and its folded body', async () => {
  await pick('/hook')
  for (const text of ['authorization', '(masked)', 'order', '"broken"', 'source', '"not fixed"', 'x-forwarded-for']) await wait(shows(text), text)
  assert.equal(await evaluate(`document.querySelectorAll('details.tree').length >= 3`), true)
  assert.equal(await evaluate(shows('hidden')), false)
  await shot('inspector')
})

await check('search and filters leave what fits', async () => {
  await set('search', 'post hook')
  assert.equal(await evaluate(`${rows}.length`), 1)
  await set('search', '')
  await set('status', '4')
  assert.equal(await evaluate(`${rows}.every(row => row.innerText.includes('422'))`), true)
  await set('status', '')
  await set('method', 'POST')
  assert.equal(await evaluate(`${rows}.length`), 1)
  await set('method', '')
})

await check('a replay is the same request, byte for byte', async () => {
  const first = seen.find(it => it.method === 'POST')
  await evaluate(`[...document.querySelectorAll('#detail button')].find(it => it.textContent === 'Replay').click()`)
  await until(() => seen.at(-1).method === 'POST' && seen.at(-1) !== first, 'the replay')
  assert.deepEqual({ ...seen.at(-1) }, { ...first })
  await wait(shows('against that of the first request'))
})

await check('an edited replay changes what is edited, and its response is shown beside the first', async () => {
  await pick('/hook')
  await wait(shows('Edit and replay'))
  await evaluate(`[...document.querySelectorAll('#detail button')].find(it => it.textContent === 'Edit and replay').click()`)
  await wait(`document.querySelector('#detail textarea[name=body]')`, 'the form')
  await evaluate(`document.querySelector('#detail textarea[name=body]').value = '{"order":"fixed"}'`)
  await evaluate(`document.querySelector('#detail form').requestSubmit()`)
  await until(() => seen.at(-1).body === '{"order":"fixed"}', 'the edited request')
  assert.equal(seen.at(-1).headers.authorization, 'Bearer hidden')
  assert.equal(seen.at(-1).headers['content-length'], '17')
  await wait(`${shows('- 422')} && ${shows('+ 200')}`, 'the difference')
  await shot('replay')
})

await check('a replay goes to another origin', async () => {
  const answer = await api('/api/exchanges/2/replay', { method: 'POST', body: JSON.stringify({ to: `http://127.0.0.1:${origin.address().port}`, method: 'PUT', path: '/elsewhere' }) })
  assert.equal(answer.status, 200)
  assert.deepEqual([seen.at(-1).method, seen.at(-1).url], ['PUT', '/elsewhere'])
  for (const [edits, why] of [['{', /JSON/], ['{"to":"ftp://x"}', /ftp/], ['{"path":"no path"}', /no path/], ['{"fields":[["a b","c"]]}', /no field/]]) {
    const refused = await api('/api/exchanges/2/replay', { method: 'POST', body: edits })
    assert.equal(refused.status, 400)
    assert.match(await refused.text(), why)
  }
})

await check('coded bodies are opened, whatever the coding', async () => {
  for (const coding of ['gzip', 'br', 'deflate']) {
    await ask(session, { path: `/${coding}` })
    await wait(`${rows}[0].innerText.includes('/${coding}')`)
    await pick(`/${coding}`)
    await wait(shows(`decoded from ${coding}`))
  }
})

await check('XML, forms, multipart, images and binary are shown as what they are', async () => {
  await ask(session, { path: '/xml' })
  await wait(`${rows}[0].innerText.includes('/xml')`)
  await pick('/xml')
  await wait(shows('  <d>\n    e'))
  await ask(session, { path: '/image' })
  await wait(`${rows}[0].innerText.includes('/image')`)
  await pick('/image')
  await wait(`document.querySelector('#detail img')?.naturalWidth === 1`, 'the image')
  await ask(session, { method: 'POST', path: '/form', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'name=J%C3%BCrgen&a=1+2' })
  await wait(`${rows}[0].innerText.includes('/form')`)
  await pick('/form')
  await wait(`${shows('Jürgen')} && ${shows('1 2')}`, 'the form')
  await ask(session, { method: 'POST', path: '/parts', headers: { 'content-type': 'multipart/form-data; boundary=xx' }, body: '--xx\r\nContent-Disposition: form-data; name="f"\r\nContent-Type: application/json\r\n\r\n{"deep":"part"}\r\n--xx--\r\n' })
  await wait(`${rows}[0].innerText.includes('/parts')`)
  await pick('/parts')
  await wait(shows('deep: "part"'))
  await ask(session, { method: 'POST', path: '/binary', headers: { 'content-type': 'application/octet-stream' }, body: Buffer.from([0, 255, 254, 65]) })
  await wait(`${rows}[0].innerText.includes('/binary')`)
  await pick('/binary')
  await wait(shows('00 ff fe 41'))
})

await check('early hints are shown', async () => {
  await ask(session, { path: '/early' })
  await wait(`${rows}[0].innerText.includes('/early')`)
  await pick('/early')
  await wait(shows('rel=preload'))
})

await check('markup of a response is text', async () => {
  await ask(session, { path: '/hostile' })
  await wait(`${rows}[0].innerText.includes('/hostile')`)
  await pick('/hostile')
  await wait(shows('<script>document.title="owned"</script>'))
  assert.equal(await evaluate('document.title'), '2ptth inspector')
  assert.equal(await evaluate(`document.querySelectorAll('#detail script, #detail img').length`), 0)
})

await check("a WebSocket's messages are shown as they come", async () => {
  const asking = https.get({
    host: 'localhost', port: gate.port, path: '/talk', rejectUnauthorized: false, ALPNProtocols: ['http/1.1'], agent: false,
    headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': crypto.randomBytes(16).toString('base64') },
  })
  const [, talk] = await once(asking, 'upgrade')
  talk.on('data', () => {})
  talk.on('error', () => {})
  const mask = crypto.randomBytes(4)
  talk.write(frame(1, Buffer.from('hello'), mask))
  await wait(`${rows}[0].innerText.includes('WS')`)
  await pick('/talk')
  await wait(`${shows('hello')} && ${shows('echo of hello')}`, 'the first messages')
  talk.write(frame(1, Buffer.from('again'), mask))
  await wait(shows('echo of again'), 'the next message')
  await shot('websocket')
  talk.destroy()
  await until(async () => (await (await api('/api/exchanges')).json()).find(it => it.path === '/talk').ms !== null, 'its end')
})

await check('the HAR file has every exchange', async () => {
  const har = await (await api('/har')).json()
  assert.equal(har.log.version, '1.2')
  const entry = har.log.entries.find(it => it.request.url.includes('/hook'))
  assert.equal(entry.request.postData.text, hook.body)
  assert.deepEqual(entry.request.queryString, [{ name: 'source', value: 'shop' }, { name: 'source', value: '2' }])
  assert.equal(entry.response.status, 422)
  assert.equal(entry.response.content.text, '{"error":"not fixed"}')
})

await check('everything is within reach of the keyboard', async () => {
  await evaluate('document.activeElement.blur()')
  await press('/')
  assert.equal(await evaluate('document.activeElement.id'), 'search')
  await evaluate('document.activeElement.blur()')
  await press('j')
  await press('j')
  const path = await evaluate(`document.activeElement.querySelector('.path').textContent`)
  await press('Enter')
  await wait(shows(path), 'the detail')
  assert.equal(await evaluate('document.activeElement.id'), 'detail')
  await press('Escape')
  assert.equal(await evaluate(`document.getElementById('detail').hidden`), true)
})

await check('10,000 requests do not slow the page, and the oldest go', async () => {
  const before = Number((await (await api('/api/exchanges')).json()).at(-1).id)
  for (let n = 0; n < 100; n += 1) await Promise.all(Array.from({ length: 100 }, (_, i) => ask(session, { path: `/many/${n * 100 + i}` })))
  await wait(`${rows}.some(row => row.innerText.includes('/many/9999'))`, 'the last')
  const began = Date.now()
  await evaluate(`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))`)
  assert.ok(Date.now() - began < 1000, `a frame took ${Date.now() - began} ms`)
  assert.ok(await evaluate(`document.querySelectorAll('#list li').length`) <= 500)
  const kept = await (await api('/api/exchanges')).json()
  assert.equal(kept.length, 500)
  assert.ok(kept.at(-1).id >= before + 10_000)
}, 60)

await check('a page that is paused stands still, and catches up', async () => {
  await evaluate(`document.getElementById('pause').click()`)
  await ask(session, { path: '/while-paused' })
  await until(async () => (await (await api('/api/exchanges')).json()).at(-1).path === '/while-paused', 'the exchange')
  await evaluate(`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))`)
  assert.equal(await evaluate(`${rows}[0].innerText.includes('/while-paused')`), false)
  await evaluate(`document.getElementById('pause').click()`)
  await wait(`${rows}[0].innerText.includes('/while-paused')`)
})

await check('light, dark and a telephone', async () => {
  const colors = []
  for (const scheme of ['light', 'dark']) {
    await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] })
    colors.push(await evaluate(`getComputedStyle(document.querySelector('header')).borderBottomColor`))
  }
  assert.notEqual(colors[0], colors[1])
  await size(360, 640)
  await evaluate(`${rows}[0].click()`)
  await wait(`!document.getElementById('detail').hidden`)
  await shot('telephone')
  const wide = await evaluate(`[document.documentElement.scrollWidth, innerWidth]`)
  assert.ok(wide[0] <= wide[1], `${wide}`)
})

await check('clear forgets all, and the page says so', async () => {
  await evaluate(`document.getElementById('clear').click()`)
  await wait(`!document.getElementById('empty').hidden`)
  assert.equal((await (await api('/api/exchanges')).json()).length, 0)
})

await check('the page broke no rule of its own', async () => assert.deepEqual(tab.complaints(), []))

tab.child.kill()
session.close()
origin.closeAllConnections()
origin.close()
await finish()
