// The origin of uploads.sh: a page that uploads, and tells how it went.
//   node uploads-origin.mjs FILE
// Prints its port. Takes 30 MB a second of each upload. Appends what each page tells to FILE, one line of JSON each.
import fs from 'node:fs'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const [file] = process.argv.slice(2)
const rate = 30e6

// What the page does is in its URL: `?count=20&mib=64` uploads that, one after the other; `&beside` asks for
// something small again and again while an upload is under way.
async function visit () {
  const query = new URLSearchParams(location.search)
  const body = new Blob([new Uint8Array(query.get('mib') * 2 ** 20)])
  const told = { who: query.get('who'), whole: 0, errors: [], times: [] }
  for (let i = 0; i < query.get('count'); i++) {
    let under = true
    const upload = fetch('/sink', { method: 'POST', body }).then(async answer => {
      const got = await answer.text()
      if (got === String(body.size)) told.whole++
      else told.errors.push(`${answer.status} ${got}`)
    }).catch(error => told.errors.push(String(error))).finally(() => { under = false })
    while (query.has('beside') && under) {
      const began = performance.now()
      await (await fetch('/small', { cache: 'no-store' })).text()
      told.times.push(Math.round(performance.now() - began))
      await new Promise(resolve => setTimeout(resolve, 200))
    }
    await upload
  }
  await fetch('/told', { method: 'POST', body: JSON.stringify(told) })
}
const page = `<!doctype html><link rel=icon href=data:,><script>(${visit})()</script>`

async function sink (request) {
  const began = performance.now()
  let bytes = 0
  for await (const chunk of request) {
    bytes += chunk.length
    const ahead = bytes / rate * 1000 - (performance.now() - began)
    if (ahead > 1) await sleep(ahead)
  }
  return String(bytes)
}

const origin = http.createServer(async (request, response) => {
  try {
    const { pathname } = new URL(request.url, 'http://origin')
    if (pathname === '/sink') return response.end(await sink(request))
    if (pathname === '/small') return response.end('.'.repeat(1024))
    if (pathname !== '/told') return response.setHeader('content-type', 'text/html').end(page)
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    fs.appendFileSync(file, Buffer.concat(chunks) + '\n')
    response.end()
  } catch (error) {
    console.error(`${request.url}: ${error}`)
    response.destroy()
  }
})
origin.listen(0, '127.0.0.1', () => console.log(origin.address().port))
