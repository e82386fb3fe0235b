#!/usr/bin/env bash
# Debian's nginx and Caddy end TLS in front of the gateway; our client gets through them by door B.
. "$(dirname "$0")/lib.sh"
need curl curl
need nginx nginx
need caddy caddy
need node nodejs
need openssl openssl

chmod 755 "$work"
head -c 10M /dev/urandom >"$work/10M"
sum=$(sha256sum "$work/10M" | cut -d' ' -f1)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$work/front.key" -out "$work/front.pem" -days 1 2>"$work/openssl.log"

start origin node "$root/test/interop/fronts-origin.mjs"
within 10 test -s "$work/origin.out"
origin=http://127.0.0.1:$(<"$work/origin.out")

cat >"$work/gateway.toml" <<'CONF'
plain = "127.0.0.1:0"
trusted_proxies = "127.0.0.1"
[[route]]
name = "site"
[[route.allow]]
bearer_env = "SECRET"
CONF
SECRET=open-sesame start gateway "${server_command[@]}" --log debug --config "$work/gateway.toml"
gateway_pid=$pid
within 10 grep -qs 'plain HTTP on' "$work/gateway.out"
plain=$(sed -n 's/^plain HTTP on //p' "$work/gateway.out")

# The server is that of docs/guide.md.
nginx_conf() { cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log stderr warn;
user $(id -un) $(id -gn);
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fcgi;
    uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
$(awk '/^```/ { show = $0 == "```nginx"; next } show' "$root/docs/guide.md" | sed "
    s|listen 443|listen 127.0.0.1:$front_port|; s|example\.com;|localhost;|; s|127\.0\.0\.1:8080|$plain|
    s|/etc/.*/fullchain.pem|$work/front.pem|; s|/etc/.*/privkey.pem|$work/front.key|")
}
CONF
}

caddy_conf() { cat >"$work/Caddyfile" <<CONF
{
    admin unix//$work/caddy.admin
    storage file_system $work/caddy
    skip_install_trust
    auto_https disable_redirects
    default_bind 127.0.0.1
}
https://localhost:$front_port {
    tls internal
    reverse_proxy $plain {
        header_up -X-Forwarded-Port
        header_up -X-Forwarded-Prefix
        flush_interval -1
    }
}
# The same, but HTTP/2 without TLS to the gateway where nothing is upgraded.
https://localhost:$other_port {
    tls internal
    @upgrade header Upgrade *
    reverse_proxy @upgrade $plain
    reverse_proxy h2c://$plain {
        header_up -X-Forwarded-Port
        header_up -X-Forwarded-Prefix
        flush_interval -1
    }
}
CONF
}

# Ports that were free a moment ago may be taken by now: then another is tried.
front() { # front NAME COMMAND…
    local name=$1
    for _ in 1 2 3; do
        front_port=$(free)
        other_port=$(free)
        "${name}_conf"
        start "$name" "${@:2}"
        # shellcheck disable=SC2034
        front_pid=$pid
        url=https://localhost:$front_port
        within 10 answers
        kill -0 "$pid" 2>/dev/null && return
    done
    return 1
}
answers() { ! kill -0 "$front_pid" 2>/dev/null || curl -sk -o /dev/null "$url/"; }

ask() { curl -sk "--http$version" --max-time 60 "$@"; }
field() { node -e 'console.log(JSON.parse(require("fs").readFileSync(0))[process.argv[1]] ?? "-")' "$1"; }
said() { grep -qs "$1" "$work/client.log"; }

# The client's arguments but for the door; TOKEN is there for the door that doesn't get through.
some_token=2ptth_$(node -p 'crypto.randomBytes(32).toString("base64url")')
knock() {
    TOKEN=$some_token AUTHORIZATION=open-sesame start client "${client_command[@]}" --ca "$ca" "$@" "localhost:$front_port" "$origin"
    client_pid=$pid
}
refused() {
    local code=0
    AUTHORIZATION=$1 timeout 20 "${client_command[@]}" --ca "$ca" "localhost:$front_port" "$origin" || code=$?
    ((code == 77))
}

honest() { [[ $(field x-forwarded-port <"$work/fields") != 1 && $(field x-forwarded-prefix <"$work/fields") == - ]]; }

visit() { # visit NAME [WHAT X-FORWARDED-FOR HOLDS]: what a visitor gets through this front
    local seen=${2-127.0.0.2, 127.0.0.1}
    for version in 1.1 2; do
        same "$1, HTTP/$version: GET" 'origin: GET /a%2Fb?x=%20' "$(ask "$url/a%2Fb?x=%20")"
        # He comes from another address than the front, and lies about it.
        same "$1, HTTP/$version: X-Forwarded-For begins with the visitor" "$seen" \
            "$(ask --interface 127.0.0.2 -H 'X-Forwarded-For: 6.6.6.6' -H 'Forwarded: for=6.6.6.6' -H 'X-Real-IP: 6.6.6.6' "$url/fields" | field x-forwarded-for)"
        same "$1, HTTP/$version: and the scheme and host are what he sees" "https localhost:${url##*:}" \
            "$(ask "$url/fields" | tee "$work/fields" | field x-forwarded-proto) $(field x-forwarded-host <"$work/fields")"
        ask -H 'X-Forwarded-Port: 1' -H 'X-Forwarded-Prefix: /his' "$url/fields" >"$work/fields"
        check "$1, HTTP/$version: what he says of port and prefix reaches nobody" honest
        same "$1, HTTP/$version: 10 MiB up" "$sum" "$(ask -T "$work/10M" "$url/sum")"
        same "$1, HTTP/$version: 10 MiB of unknown length up" "$sum" "$(ask -T - "$url/sum" <"$work/10M")"
        same "$1, HTTP/$version: 10 MiB down" "$big" "$(ask "$url/big" | sha256sum)"
    done
    same "$1: a WebSocket" 'hello long' "$(node "$root/test/interop/websocket-visitor.mjs" "$url/socket")"
}
big=$(curl -s "$origin/big" | sha256sum)

try() { # try NAME: both ways of our client through the front that runs
    same "$1: no backend, 502" 502 "$(curl -sk -o "$work/page" -w '%{http_code}' "$url/")"
    check "$1: a wrong secret is answered 401, and the client ends with 77" refused wrong
    knock --via auto
    check "$1: the client finds its way by itself" within 15 up
    check "$1: and says so" said 'registered by HTTP instead'
    visit "$1"
    stop "$client_pid"
    within 10 gone
    knock --via upgrade
    check "$1: --via upgrade" within 15 up
    same "$1: --via upgrade: GET" 'origin: GET /' "$(curl -sk "$url/")"
}
gone() { ! up; }

# reload NAME COMMAND…: with a download on its way, and requests behind it
reload() {
    rm -f "$work/slow"
    curl -skf --max-time 60 -o "$work/slow" "$url/slow" &
    local slow=$!
    within 10 test -s "$work/slow"
    "${@:2}"
    wait "$slow" || true
    check "$1: reloaded, requests come through" within 5 up
    for _ in {1..20}; do curl -sk "$url/"; done >"$work/twenty"
    same "$1: and go on to" 20 "$(grep -c 'origin: GET /' "$work/twenty")"
}

ca=$work/front.pem
front nginx nginx -e stderr -c "$work/nginx.conf" -p "$work"
try nginx
reload nginx kill -HUP "$front_pid"
same 'nginx: a download that ran while it was reloaded is whole' "$big" "$(sha256sum <"$work/slow")"
stop "$client_pid"
stop "$front_pid"

ca=$work/caddy/pki/authorities/local/root.crt
front caddy env HOME="$work" caddy run --config "$work/Caddyfile" --adapter caddyfile
try caddy
url=https://localhost:$other_port
visit 'caddy with h2c'
url=https://localhost:$front_port
# This one cuts all that it carries, downloads and tunnels: the client is back at once.
reload caddy env HOME="$work" caddy reload --force --config "$work/Caddyfile" --adapter caddyfile --address "unix//$work/caddy.admin" 2>"$work/reload.log"
stop "$client_pid"
stop "$front_pid"
stop "$gateway_pid"

# Nothing in front: the door inside one stream of HTTP/2.
sed -i '/^plain/d; /^trusted/d' "$work/gateway.toml"
SECRET=open-sesame gateway --self-signed --listen 127.0.0.1:0 --config "$work/gateway.toml"
AUTHORIZATION=open-sesame start client "${client_command[@]}" "${client_args[@]}" --via connect "$origin"
check 'no front: --via connect' within 15 up
check 'no front: HTTP/2 carries the tunnel' said 'by=h2'
visit 'no front' 127.0.0.2
