// The origin of events.sh: numbered events, which go on after the last one that the visitor has.
//   node events-origin.mjs PORT FILE
// Prints its port. Appends `WHO LAST` to FILE for each visitor that comes: its name, and the number it has.
import fs from 'node:fs'
import http from 'node:http'

const [port, file] = process.argv.slice(2)
const page = `<!doctype html><link rel=icon href=data:,><script>
  new EventSource('/events' + location.search)
</script>`

const origin = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://origin')
  if (url.pathname !== '/events') return response.setHeader('content-type', 'text/html').end(page)
  let last = Number(request.headers['last-event-id'] ?? 0)
  fs.appendFileSync(file, `${url.searchParams.get('who')} ${last}\n`)
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  response.write('retry: 100\n\n')
  const timer = setInterval(() => response.write(`id: ${++last}\ndata: ${last}\n\n`), 20)
  response.on('close', () => clearInterval(timer))
})
origin.listen(Number(port), '127.0.0.1', () => console.log(origin.address().port))
