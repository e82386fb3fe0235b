#!/usr/bin/env bash
# curl and h2load as visitors.
. "$(dirname "$0")/lib.sh"
need curl curl
need h2load nghttp2-client
need node nodejs

gateway --self-signed --listen 127.0.0.1:0
ask() { curl -sk "--http$version" --max-time 30 "$@"; }
status() { ask -o /dev/null -w '%{http_code}' "$@"; }

head -c 10M /dev/urandom >"$work/10M"

for version in 1.1 2; do
    # Twice on one connection: the gateway's own answer must leave it usable.
    body='There is no upstream available'
    check "HTTP/$version: no backend: 502, and in words" grep -qi "$body.*" <(ask "$url/" "$url/")
    same "HTTP/$version: no backend: the connection lives on" '502 1 502 0 ' \
        "$(ask -o /dev/null -o /dev/null -w '%{http_code} %{num_connects} ' "$url/" "$url/")"
    same "HTTP/$version: no backend: 502 before an upload's end" 502 "$(status -T "$work/10M" "$url/")"
done

start origin node "$root/test/interop/origin.mjs"
within 10 test -s "$work/origin.out"
client "${client_args[@]}" "http://127.0.0.1:$(<"$work/origin.out")"
sum=$(sha256sum "$work/10M" | cut -d' ' -f1)

for version in 1.1 2; do
    same "HTTP/$version: spoken" "$version" "$(status -w ' %{http_version}' "$url/" | cut -d' ' -f2)"

    for method in GET POST PUT PATCH DELETE OPTIONS PROPFIND PURGE; do
        same "HTTP/$version: $method" "$method /x" "$(ask -X "$method" "$url/x")"
    done
    same "HTTP/$version: HEAD" '200 0' "$(ask -I -o "$work/head" -w '%{http_code} %{size_download}' "$url/")"
    same "HTTP/$version: OPTIONS *" 'OPTIONS *' "$(ask -X OPTIONS --request-target '*' "$url")"

    for code in 200 201 204 205 301 304 307 400 401 404 409 418 429 500 501 502 503 599; do
        same "HTTP/$version: status $code" "$code" "$(status "$url/status/$code")"
    done
    same "HTTP/$version: redirects aren't followed" https://elsewhere.test/ "$(status -w '\n%{redirect_url}' "$url/status/302" | tail -n 1)"

    for path in '/a%2Fb?x=%20&y=a+b' //x '/?' '/%c3%bc/../up/./here' "/$(printf 'p%.0s' {1..7000})"; do
        same "HTTP/$version: path ${path:0:40}" "GET $path" "$(ask --path-as-is "$url$path")"
    done

    same "HTTP/$version: 10 MiB, Expect: 100-continue" "$sum" "$(ask -T "$work/10M" -H 'Expect: 100-continue' "$url/sum")"
    same "HTTP/$version: 10 MiB of unknown length" "$sum" "$(ask -T - "$url/sum" <"$work/10M")"
    check "HTTP/$version: 413 before the upload's end" grep -q 'said the origin' <(ask -T "$work/10M" "$url/413")
    same "HTTP/$version: 413 is the status" 413 "$(status -T "$work/10M" "$url/413")"

    same "HTTP/$version: compressed passes through" compressed "$(ask "$url/gzip" | gunzip)"
    same "HTTP/$version: compressed, for curl to unpack" compressed "$(ask --compressed "$url/gzip")"
done

# h2load exits with 0 whatever happens, so its count of successes is what counts.
load() { h2load "$@" "$url/" >"$work/h2load.log"; grep -q ' 20000 succeeded, 0 failed, 0 errored, 0 timeout' "$work/h2load.log"; }
check 'h2load: 20,000 requests over HTTP/2' load -n 20000 -c 32 -m 10
check 'h2load: 20,000 requests over HTTP/1.1' load --h1 -n 20000 -c 32
