#!/usr/bin/env bash
# Headless Chromium as the visitor, over HTTP/2 and then over HTTP/1.1: chromium.html holds the checks.
. "$(dirname "$0")/lib.sh"
need curl curl
need chromium chromium
need node nodejs

browse() { # browse PROTOCOL [chromium's flags]
    start origin node "$root/test/interop/chromium-origin.mjs"
    origin_pid=$pid
    within 10 test -s "$work/origin.out"
    gateway --self-signed --listen 127.0.0.1:0
    client "${client_args[@]}" "http://127.0.0.1:$(head -n 1 "$work/origin.out")"
    start chromium chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --ignore-certificate-errors \
        --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE localhost' --user-data-dir="$work/profile-${1/\//}" \
        --log-net-log="$work/net.json" "${@:2}" "$url/?expect=$1"
    chromium_pid=$pid
    wait "$origin_pid" || failed=$((failed + 1))
    sed "1d; s|ok - |&$1: |" "$work/origin.out"
    stop "$chromium_pid"
    # What went wrong on the network, in the browser's own words (net_error_list.h); -3 is its own giving up.
    ((!failed)) || grep -oE '"(net_error|error_code)":"?[-0-9A-Z_ ()]+' "$work/net.json" | sort | uniq -c | sed 's/^/# /'
    stop "$client_pid"
    stop "$gateway_pid"
}

browse h2
# The origin can't see it and the page neither, but the browser's own log tells.
check 'h2: the WebSocket went over HTTP/2 (RFC 8441)' grep -q ':protocol: websocket' "$work/net.json"
browse http/1.1 --disable-http2
