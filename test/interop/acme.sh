#!/usr/bin/env bash
# Certificates by itself, from Debian's pebble, which validates as Let's Encrypt does: it dials the gateway by the name.
. "$(dirname "$0")/lib.sh"
need curl curl
need node nodejs
need openssl openssl
need pebble pebble

read -r port directory_port management_port dns_port dns_management_port < <(for _ in {1..5}; do free; done | xargs)
directory=https://localhost:$directory_port/dir
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
    -keyout "$work/key.pem" -out "$work/directory.pem" 2>"$work/openssl.log"

# Every name leads to this machine, as far as nothing else is said.
start dns pebble-challtestsrv -dns01 "127.0.0.1:$dns_port" -management "127.0.0.1:$dns_management_port" \
    -http01 '' -https01 '' -tlsalpn01 '' -defaultIPv4 127.0.0.1 -defaultIPv6 ''
within 10 curl -s -o /dev/null -d '{"host": "elsewhere.test", "addresses": ["127.0.0.2"]}' \
    "http://127.0.0.1:$dns_management_port/add-a"

directory() { # directory SECONDS: starts one whose certificates live so long
    cat >"$work/pebble.json" <<JSON
{"pebble": {
  "listenAddress": "127.0.0.1:$directory_port", "managementListenAddress": "127.0.0.1:$management_port",
  "certificate": "$work/directory.pem", "privateKey": "$work/key.pem", "tlsPort": $port, "httpPort": 1,
  "domainBlocklist": ["refused.test"], "certificateValidityPeriod": $1}}
JSON
    # Without its pause before each validation; one nonce in twenty is refused nevertheless.
    start pebble env PEBBLE_VA_NOSLEEP=1 pebble -config "$work/pebble.json" -dnsserver "127.0.0.1:$dns_port"
    pebble_pid=$pid
    within 10 roots
}
roots() { curl -s --cacert "$work/directory.pem" "https://localhost:$management_port/roots/0" -o "$work/roots.pem"; }

issue() { # issue NAME…: a gateway that orders for these names
    local names=() name
    for name; do names+=(--acme "$name"); done
    gateway --listen "127.0.0.1:$port" --state "$work/state" "${names[@]}" --acme-email admin@example.com \
        --acme-directory "$directory" --acme-ca "$work/directory.pem"
    url=https://localhost:$port
}
# The certificate that visitors of a name are shown, and whether it leads to the directory's root.
shown() { openssl s_client -connect "127.0.0.1:$port" -servername "$1" </dev/null 2>/dev/null | openssl x509 -noout "${@:2}"; }
trusted() { curl -sf -o /dev/null --cacert "$work/roots.pem" --resolve "$1:$port:127.0.0.1" "https://$1:$port/" || [[ $? == 22 ]]; }
said() { grep -q "$@" "$work/gateway.log"; }
memory() { awk '/VmRSS/ {printf "%.1f MiB\n", $2 / 1024}' "/proc/$gateway_pid/status"; }

mkdir "$work/state"
issue first.test refused.test elsewhere.test
check 'a directory that is down is a warning' within 5 said 'WARN.*acme: no new certificate.*retry_s=.*isn.t there'
same '…and visitors get the self-signed certificate' "$(shown first.test -subject | sed s/subject//)" \
    "$(shown first.test -issuer | sed s/issuer//)"
check '…and the log says so' said 'first.test has no certificate of its directory yet'
directory 31536000
check 'the certificate comes when the directory does' within 30 trusted first.test
check 'a refused order is told with the words of the directory' \
    within 30 said 'WARN.*name="refused.test".*forbidden by policy'
check 'a name that leads elsewhere is told, too' \
    within 30 said 'WARN.*name="elsewhere.test".*Failed to connect to 127.0.0.2'
check '…and has no certificate' eval '! trusted elsewhere.test'
check 'the account, the key and the chain are for the owner alone' \
    test -z "$(find "$work/state/acme" -type f ! -perm 600)"

probe() { openssl s_client -connect "127.0.0.1:$port" -servername "$1" -alpn "$2" </dev/null 2>&1 || true; }
check 'a validator of a name without an order gets an alert' \
    grep -q 'alert no application protocol' <(probe first.test acme-tls/1)
check 'a visitor that offers the label among others is a visitor' \
    grep -q 'ALPN protocol: http/1.1' <(probe first.test acme-tls/1,http/1.1)

stop "$gateway_pid"
lines=$(wc -l <"$work/pebble.out")
issue first.test
check 'a restart shows what is stored' trusted first.test
sleep 3
same '…and asks nothing' "$lines 0" "$(wc -l <"$work/pebble.out") $(grep -c acme: "$work/gateway.log" || true)"
stop "$gateway_pid"

rm -r "$work/state"
mkdir "$work/state"
began=$(date +%s%N)
issue second.test
check 'the first certificate' within 30 trusted second.test
printf '# %s from the start of the gateway to the certificate, memory %s\n' \
    "$(awk "BEGIN {printf \"%.1f s\", ($(date +%s%N) - $began) / 1e9}")" "$(memory)"
stop "$gateway_pid"
stop "$pebble_pid"

# A third of half a minute.
directory 30
rm -r "$work/state"
mkdir "$work/state"
start origin node "$root/test/interop/fronts-origin.mjs"
within 10 test -s "$work/origin.out"
issue third.test
check 'a certificate of half a minute' within 20 trusted third.test
client --insecure "localhost:$port" "http://127.0.0.1:$(cat "$work/origin.out")"
before=$(shown third.test -serial)
renewed() { [[ $(shown third.test -serial) != "$before" ]]; }
# Until the file is there, sends each message when the one before came back.
start visitor node "$root/test/interop/acme-visitor.mjs" "$url/socket" "$work/enough"
visitor_pid=$pid
within 10 grep -q open "$work/visitor.out"
ask() { curl -sk -o /dev/null -w '%{http_code}\n' "$url/" >>"$work/answers"; renewed; }
check 'it is renewed with a third of its life left' within 40 ask
same '…while no request fails' 200 "$(sort -u "$work/answers")"
check '…and the new one is trusted' trusted third.test
touch "$work/enough"
check '…and a WebSocket lives through it' wait "$visitor_pid"
printf '# %s after the renewal, %s\n' "$(memory)" "$(tail -n 1 "$work/visitor.out")"
