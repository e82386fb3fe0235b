#!/usr/bin/env bash
# Origins that compare URLs: WebDAV by Debian's Apache, a form that looks at Origin, a development server.
. "$(dirname "$0")/lib.sh"
need curl curl
need node nodejs
need apache2 apache2
need litmus litmus

chmod 755 "$work"
mkdir "$work/dav" "$work/locks"
# Apache gives up root, and must write.
user=nobody
[[ $(id -u) != 0 ]] || chown "$user" "$work/dav" "$work/locks"
serve() {
    origin_port=$(free)
    {
        for module in mpm_event authz_core dav dav_fs; do
            echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
        done
        cat <<CONF
ServerName localhost
ServerRoot $work
User $user
Group nogroup
PidFile $work/apache.pid
ErrorLog /dev/stderr
Listen 127.0.0.1:$origin_port
DocumentRoot $work/dav
DavLockDB $work/locks/db
<Directory $work/dav>
    Dav On
    Require all granted
</Directory>
CONF
    } >"$work/apache.conf"
    start apache apache2 -X -f "$work/apache.conf"
    within 10 answers
}
answers() {
    kill -0 "$pid" || return 0
    curl -s -o /dev/null "http://127.0.0.1:$origin_port/"
}
for _ in 1 2 3; do serve; kill -0 "$pid" 2>/dev/null && break; done

gateway --self-signed --listen 127.0.0.1:0
ask() { curl -sk --max-time 60 "$@"; }


client "${client_args[@]}" "http://127.0.0.1:$origin_port"
# It writes files where it runs.
check 'WebDAV by Apache passes litmus' env -C "$work" litmus "$url/"
ask -X PUT -d 'one' -o /dev/null "$url/one"
for version in 1.1 2; do
    same "MOVE, HTTP/$version" 201 \
        "$(ask "--http$version" -X MOVE -H "Destination: $url/two" -o /dev/null -w '%{http_code}' "$url/one")"
    same "MOVE to another site is refused, HTTP/$version" 502 \
        "$(ask "--http$version" -X MOVE -H 'Destination: https://evil.test/three' -o /dev/null -w '%{http_code}' "$url/two")"
    same "and back, HTTP/$version" 201 \
        "$(ask "--http$version" -X MOVE -H "Destination: $url/one" -o /dev/null -w '%{http_code}' "$url/two")"
done
stop "$client_pid"

# As frameworks do it: who posts from elsewhere is refused, who logs in is led to a URL of the host that was asked.
cat >"$work/form.mjs" <<'JS'
import http from 'node:http'
const server = http.createServer((request, response) => {
  const own = `http://${request.headers.host}`
  const referer = request.headers.referer
  if (request.method === 'POST' && (request.headers.origin !== own || !referer?.startsWith(`${own}/`))) {
    response.writeHead(403).end()
    return
  }
  response.writeHead(303, { location: `${own}/home`, 'set-cookie': `in=1; Domain=${request.headers.host.split(':')[0]}` }).end()
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
JS
start form node "$work/form.mjs"
within 10 test -s "$work/form.out"
client --host-header app.test "${client_args[@]}" "http://127.0.0.1:$(cat "$work/form.out")"
post() { ask -o /dev/null -D - -w '%{http_code}' -d user=x -H "Origin: $1" -H "Referer: $1/login" "$url/login" | tr -d '\r'; }
said=$(post "$url")
check 'a form that was sent from its own page is taken' test "${said: -3}" = 303
check '…and leads to where the visitor is' grep -qix "location: $url/home" <<<"$said"
check '…with a cookie for there' grep -qix 'set-cookie: in=1; Domain=localhost' <<<"$said"
said=$(post https://evil.test)
check 'one from another site is refused' test "${said: -3}" = 403
stop "$client_pid"

# A development server is written for those who open it at its own address.
if npm install --silent --no-audit --no-fund --prefix "$work/dev" webpack@5 webpack-cli@6 webpack-dev-server@5 >"$work/npm.log" 2>&1; then
    mkdir "$work/dev/src"
    echo 'document.title = "one"' >"$work/dev/src/index.js"
    start dev env -C "$work/dev" npx webpack serve --mode development --host 127.0.0.1 --port 0
    within 60 grep -q 'Loopback: http' "$work/dev.log" "$work/dev.out"
    dev=$(grep -ho 'Loopback: http://[^/]*' "$work/dev.log" "$work/dev.out" | head -1 | sed 's/.*http/http/')
    client --any-host --host-header origin "${client_args[@]}" "$dev"
    check "a development server's script" grep -q webpackHotUpdate <(ask -H "Host: app.test:$port" "$url/main.js")
    # Opens the socket as the page does, changes the source, and waits to be told of a new build.
    cat >"$work/updates.mjs" <<JS
import fs from 'node:fs'
import https from 'node:https'
const { parse } = await import('$root/test/interop/websocket.mjs')
setTimeout(() => { console.log('no update within 30 s'); process.exit(1) }, 30000).unref()
const headers = {
  // No name that it would take anyway.
  Host: 'app.test:' + process.argv[2], Origin: 'https://app.test:' + process.argv[2],
  Connection: 'Upgrade', Upgrade: 'websocket',
  'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}
const request = https.get('https://localhost:' + process.argv[2] + '/ws', { rejectUnauthorized: false, ALPNProtocols: ['http/1.1'], headers })
request.on('response', response => { console.log('refused:', response.statusCode); process.exit(1) })
request.on('upgrade', (response, socket, head) => {
  let [unread, builds] = [head, 0]
  const take = data => {
    const { frames, rest } = parse(Buffer.concat([unread, data]))
    unread = rest
    for (const { payload } of frames) {
      console.log(String(payload).slice(0, 99))
      if (String(payload).includes('Invalid')) process.exit(1)
      if (JSON.parse(payload).type !== 'ok') continue
      if (++builds === 2) process.exit(0)
      fs.writeFileSync(process.argv[3], 'document.title = "two"')
    }
  }
  socket.on('data', take)
  take(Buffer.alloc(0))
})
JS
    check '…and its socket for updates' node "$work/updates.mjs" "$port" "$work/dev/src/index.js"
else
    echo 'skipped: the development server, which comes from the registry of packages'
fi
