#!/usr/bin/env bash
# Uploads from Chromium: large ones beside busy cores, none of which breaks off; and what else its visitor asks for
# while one fills his uplink, compared with nginx. UPLOADS: how many of the large ones; 20 is what was promised.
. "$(dirname "$0")/lib.sh"
need chromium chromium
need curl curl
need ip iproute2
need jq jq
need nginx nginx
need node nodejs
need openssl openssl

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log"
chmod 755 "$work"

start origin node "$root/test/interop/uploads-origin.mjs" "$work/told"
within 10 test -s "$work/origin.out"
origin=127.0.0.1:$(<"$work/origin.out")

browse() { # browse WHO URL [a command before chromium…]
    start "$1" "${@:3}" chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --ignore-certificate-errors \
        --user-data-dir="$work/profile-$1" "$2&who=$1"
    browser=$pid
}
told() { # told WHO JQ-FILTER
    [[ -s $work/told ]] && jq -r "select(.who == \"$1\") | $2" "$work/told" | grep .
}

gateway --cert "$work/cert.pem" --key "$work/key.pem" --listen 127.0.0.1:0
client "${client_args[@]}" "http://$origin"
count=${UPLOADS:-6}
busy=()
for ((i = 0; i < $(nproc); i++)); do
    start "busy$i" sh -c 'while :; do :; done'
    busy+=("$pid")
done
browse large "$url/?count=$count&mib=64"
within $((60 + count * 30)) told large .who >/dev/null || true
same "$count uploads of 64 MiB beside busy cores, all of them whole" "$count" "$(told large '"\(.whole)\(.errors | join(","))"')"
stop "$browser"
for pid in "${busy[@]}"; do stop "$pid"; done
stop "$client_pid"
stop "$gateway_pid"

# An uplink of 3 Mbit/s, between a namespace of its own and this machine.
space=uplink$$ near=up${$}a far=up${$}b here=198.18.0.1 there=198.18.0.2
undo() { ip netns del "$space" 2>/dev/null; ip link del "$near" 2>/dev/null; }
uplink() {
    # Chromium breaks everything off when an address comes, as IPv6's do a while after the link.
    ip netns add "$space" &&
        ip netns exec "$space" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6' &&
        ip link add "$near" type veth peer name "$far" netns "$space" &&
        ip address add "$here/30" dev "$near" && ip link set "$near" up &&
        ip -n "$space" address add "$there/30" dev "$far" && ip -n "$space" link set "$far" up &&
        ip -n "$space" link set lo up &&
        tc -n "$space" qdisc add dev "$far" root tbf rate 3mbit burst 16kb latency 400ms
}
if ! uplink 2>"$work/uplink.log"; then
    echo "skipped: no network namespaces here: $(tail -n 1 "$work/uplink.log")"
    exit
fi

nginx_port=$(free "$here")
cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log stderr warn;
user $(id -un) $(id -gn);
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/fcgi;
    uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    server {
        listen $here:$nginx_port ssl http2;
        ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;
        client_max_body_size 0;
        location / { proxy_pass http://$origin; proxy_http_version 1.1; proxy_request_buffering off; }
    }
}
CONF
start nginx nginx -e stderr -c "$work/nginx.conf" -p "$work"
gateway --cert "$work/cert.pem" --key "$work/key.pem" --listen 127.0.0.1:0 --listen "$here:0"
client "${client_args[@]}" "http://$origin"

median='.times | sort | .[length / 2 | floor]'
for who in nginx 2ptth; do
    [[ $who == nginx ]] && at=$nginx_port || at=$(sed -n "s/^listening on $here://p" "$work/gateway.out")
    browse "$who" "https://$here:$at/?count=1&mib=6&beside" ip netns exec "$space"
    within 120 told "$who" .who >/dev/null || true
    stop "$browser"
    same "$who: 6 MiB over 3 Mbit/s, whole" 1 "$(told "$who" '"\(.whole)\(.errors | join(","))"')"
    echo "# $who: requests beside it, median $(told "$who" "$median") ms, at most $(told "$who" '.times | max') ms"
done
check "a small request beside an upload waits at most twice as long as with nginx" \
    test "$(told 2ptth "$median")" -le $((2 * $(told nginx "$median") + 20))
