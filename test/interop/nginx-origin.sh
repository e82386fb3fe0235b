#!/usr/bin/env bash
# Debian's nginx as the origin.
. "$(dirname "$0")/lib.sh"
need curl curl
need nginx nginx
need h2load nghttp2-client
need node nodejs

mkdir "$work/www" "$work/put"
echo hello >"$work/www/hello.txt"
head -c 256M /dev/urandom >"$work/www/big"
chmod 755 "$work"

# nginx can't be asked for port 0 and tell; a socket file is nobody else's, and a port found free is taken by a race
# at most: then nginx fails to start and another is tried.
serve() {
    origin_port=$(free)
    cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $work/nginx.pid; error_log stderr warn;
user $(id -un) $(id -gn);
events { worker_connections 1024; }
http {
    access_log off;
    default_type text/plain;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fcgi;
    uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    keepalive_requests 10;
    server {
        listen 127.0.0.1:$origin_port;
        listen unix:$work/nginx.sock;
        client_max_body_size 1m;
        root $work/www;
        location /put/ { root $work; dav_methods PUT; client_max_body_size 20m; }
    }
}
CONF
    start nginx nginx -e stderr -c "$work/nginx.conf" -p "$work"
    within 10 answers
}
answers() {
    kill -0 "$pid" || return 0
    curl -sf -o /dev/null "http://127.0.0.1:$origin_port/hello.txt"
}
for _ in 1 2 3; do serve; kill -0 "$pid" 2>/dev/null && break; done

gateway --self-signed --listen 127.0.0.1:0

ask() { curl -sk "--http$version" --max-time 60 "$@"; }
load() { h2load "$@" >"$work/h2load.log"; grep -q ' 20000 succeeded, 0 failed, 0 errored, 0 timeout' "$work/h2load.log" &&
    grep -q 'status codes: 20000 2xx' "$work/h2load.log"; }
big=$(sha256sum "$work/www/big" | cut -d' ' -f1)
head -c 10M /dev/urandom >"$work/10M"

try() { # try ORIGIN-NAME
    local tag
    for version in 1.1 2; do
        same "$1, HTTP/$version: a file" hello "$(ask "$url/hello.txt")"
        same "$1, HTTP/$version: a range of it" 'ell 206' "$(ask -r 1-3 -w ' %{http_code}' "$url/hello.txt")"
        tag=$(ask -I "$url/hello.txt" | tr -d '\r' | sed -n 's/^etag: //Ip')
        same "$1, HTTP/$version: 304 for its ETag" 304 "$(ask -o /dev/null -w '%{http_code}' -H "If-None-Match: $tag" "$url/hello.txt")"
        same "$1, HTTP/$version: 256 MiB down" "$big" "$(ask "$url/big" | sha256sum | cut -d' ' -f1)"
        same "$1, HTTP/$version: 10 MiB up, by PUT" 201 "$(ask -o /dev/null -w '%{http_code}' -T "$work/10M" "$url/put/$1-$version")"
        check "$1, HTTP/$version: 10 MiB up, the same bytes" cmp "$work/10M" "$work/put/$1-$version"
        same "$1, HTTP/$version: 413 beyond what nginx takes" 413 "$(ask -o /dev/null -w '%{http_code}' -T "$work/10M" "$url/hello.txt")"
    done
    # nginx closes after 10 requests, and after 1 ms: a request sent on such a connection must be tried again.
    check "$1: 20,000 requests, nginx closes after every tenth: no 502" load -n 20000 -c 16 -m 4 "$url/hello.txt"
}

client "${client_args[@]}" "http://127.0.0.1:$origin_port"
try tcp
stop "$client_pid"
client "${client_args[@]}" "unix:$work/nginx.sock"
try unix
