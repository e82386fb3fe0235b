#!/usr/bin/env bash
# curl and h2load as visitors; Node's HTTP/2 client for uploads that are answered early.
. "$(dirname "$0")/lib.sh"
need curl curl
need h2load nghttp2-client
need node nodejs

gateway --self-signed --listen 127.0.0.1:0
ask() { curl -sk "--http$version" --max-time 30 "$@"; }
status() { ask -o /dev/null -w '%{http_code}' "$@"; }

head -c 10M /dev/urandom >"$work/10M"
echo hi >"$work/small"

# early SENTENCE STATUS PATH: each kind of upload ends by itself, within a second, with that status and the whole
# body. After a 2xx curl before 8 wants to send the rest, and exits with 92 since it may not: that is its own affair.
early() {
    local file upload
    for file in small 10M; do
        for upload in '-T -' '-T FILE' '--data-binary @-' '-F file=@FILE'; do
            # shellcheck disable=SC2086
            same "HTTP/$version: $1: $upload ($file)" "$2 0 0." \
                "$(ask -o "$work/early" -w '%{http_code} %{exitcode} %{time_total}' ${upload/FILE/$work\/$file} "$url$3" <"$work/$file" |
                    sed 's/\( [0-9]*\.\)[0-9]*$/\1/; s/^200 92 /200 0 /')"
            check "HTTP/$version: $1: $upload ($file): the body" grep -q 'said the origin\|no upstream' "$work/early"
        done
    done
    [[ $version == 1.1 ]] || check "HTTP/2: $1: Node" timeout 10 node "$root/test/interop/early-visitor.mjs" "$url" "$3" "$2"
}

for version in 1.1 2; do
    # Twice on one connection: the gateway's own answer must leave it usable.
    body='There is no upstream available'
    check "HTTP/$version: no backend: 502, and in words" grep -qi "$body.*" <(ask "$url/" "$url/")
    same "HTTP/$version: no backend: the connection lives on" '502 1 502 0 ' \
        "$(ask -o /dev/null -o /dev/null -w '%{http_code} %{num_connects} ' "$url/" "$url/")"
    early 'no backend: 502 before' 502 /up
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
    check "HTTP/$version: 413 before the upload's end" grep -q 'said the origin' <(ask -T "$work/10M" "$url/early/413")
    for code in 200 413 502; do early "$code before" "$code" "/early/$code"; done

    same "HTTP/$version: compressed passes through" compressed "$(ask "$url/gzip" | gunzip)"
    same "HTTP/$version: compressed, for curl to unpack" compressed "$(ask --compressed "$url/gzip")"
done

# h2load exits with 0 whatever happens, so its count of successes is what counts.
load() { h2load "$@" "$url/" >"$work/h2load.log"; grep -q ' 20000 succeeded, 0 failed, 0 errored, 0 timeout' "$work/h2load.log"; }
check 'h2load: 20,000 requests over HTTP/2' load -n 20000 -c 32 -m 10
check 'h2load: 20,000 requests over HTTP/1.1' load --h1 -n 20000 -c 32
