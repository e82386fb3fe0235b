#!/usr/bin/env bash
# Server-sent events go on after a restart of the origin, the client and the gateway: with npm's `eventsource` over
# HTTP/1.1, and with Chromium's over both protocols.
. "$(dirname "$0")/lib.sh"
need chromium chromium
need curl curl
need node nodejs
need npm npm
need openssl openssl

(cd "$work" && npm install --silent --no-audit --no-fund eventsource@4)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log"

origin() {
    start origin node "$root/test/interop/events-origin.mjs" "${origin_port-0}" "$work/seen"
    origin_pid=$pid
    within 10 test -s "$work/origin.out"
    origin_port=$(<"$work/origin.out")
}
serve() {
    gateway --cert "$work/cert.pem" --key "$work/key.pem" --listen "127.0.0.1:${port-0}"
    # The one that it made at its first start, for the others, too.
    export TOKEN=${TOKEN-$token}
    token=$TOKEN
}
dial() { client "${client_args[@]}" "http://127.0.0.1:$origin_port"; }
origin && serve && dial

browse() { # browse WHO [chromium's flags]
    start "$1" chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --ignore-certificate-errors \
        --user-data-dir="$work/profile-$1" "${@:2}" "$url/?who=$1"
}
browse chromium-h2
browse chromium-h1 --disable-http2
cat >"$work/visitor.mjs" <<'JS'
import { EventSource } from 'eventsource'
new EventSource(process.argv[2])
JS
NODE_TLS_REJECT_UNAUTHORIZED=0 start npm node "$work/visitor.mjs" "$url/events?who=npm"
visitors=(npm chromium-h2 chromium-h1)

declare -A had
has() { sed -n "s/^$1 //p" "$work/seen" | tail -n 1; }
came() { [[ -n $(has "$1") ]]; }
# Whether it came again, with more events than when it came last.
came_again() { (($(has "$1") > had[$1])); }

for who in "${visitors[@]}"; do check "$who: events come" within 30 came "$who"; done

restart() { # restart WHAT PID COMMAND
    for who in "${visitors[@]}"; do had[$who]=$(has "$who"); done
    # For some events, and then for some attempts that fail.
    sleep 0.5
    # Asked to end, the gateway and the client would wait for the visitors.
    kill -9 "$2"
    stop "$2"
    sleep 1
    "$3"
    for who in "${visitors[@]}"; do check "$who: events go on after a restart of the $1" within 10 came_again "$who"; done
}
restart origin "$origin_pid" origin
restart client "$client_pid" dial
# Two programs in turn: the gateway is there before the client has come back.
restart gateway "$gateway_pid" serve
# What came after the last restart shows when they come again.
restart origin "$origin_pid" origin
