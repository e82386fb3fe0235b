#!/usr/bin/env bash
# The recipes of docs/recipes.md that take Node or Caddy, as they stand there but for the addresses.
. "$(dirname "$0")/lib.sh"
need curl curl
need caddy caddy
need node nodejs

cd "$work"
# block JOB FIRST-LINE: the block of a recipe that begins with this line.
block() {
    awk -v job="($1)" -v first="$2" '
        /^#+ / && !inside { here = index($0, "## Recipe: ") == 1 && substr($0, length($0) - length(job) + 1) == job }
        /^```/ { inside = !inside; n = 0; show = 0; next }
        inside && here { if (++n == 1) show = $0 == first; if (show) print }
    ' "$root/docs/recipes.md"
}
# expected JOB TEXT: what the page says that the `curl` line with this text shows.
expected() {
    awk -v job="($1)" -v text="$2" '
        /^## / { here = substr($0, length($0) - length(job) + 1) == job }
        here && /^curl / && index($0, text) { sub(/.* # */, ""); print; exit }
    ' "$root/docs/recipes.md"
}

# 2ptth: a backend that knows nothing but the label.
gateway --self-signed --open --listen 127.0.0.1:0
block 2ptth '// backend.mjs' | sed "s/example\.com/localhost/g; s/443/$port, rejectUnauthorized: false/" >backend.mjs
check 'the block of backend.mjs is there' test -s backend.mjs
start backend node backend.mjs
check '2ptth: the Node backend is admitted' within 10 up
same '2ptth: and answers' "$(expected 2ptth https://example.com/)" "$(curl -sk "$url/")"
stop "$pid"
stop "$gateway_pid"

# caddy-clientproxy: behind Caddy, which has sites of its own.
job=caddy-clientproxy
printf 'the secret of git' | sha256sum | cut -c1-64 >git.secret
printf 'the secret of wiki' | sha256sum | cut -c1-64 >wiki.secret
chmod 600 ./*.secret
start git node "$root/test/interop/fronts-origin.mjs" git
start wiki node "$root/test/interop/fronts-origin.mjs" wiki
within 10 test -s git.out && within 10 test -s wiki.out
block $job '# gateway.toml' | sed 's/127\.0\.0\.1:8000/127.0.0.1:0/' >gateway.toml
start gateway "${server_command[@]}" --config gateway.toml
within 10 grep -qs 'plain HTTP on' gateway.out
plain=$(sed -n 's/^plain HTTP on //p' gateway.out)

# The gateway's own name is the one that must be found without DNS.
caddyfile() {
    printf '{\nadmin off\nstorage file_system %s\nskip_install_trust\nauto_https disable_redirects\ndefault_bind 127.0.0.1\nlocal_certs\n}\n' "$work/caddy"
    block $job '# Caddyfile' | sed -E "s/gateway\.example\.com/localhost/; s/([a-z.]+\.com|localhost)(,| \{)/\1:$front_port\2/g; s/127\.0\.0\.1:8000/$plain/"
}
answers() { ! kill -0 "$pid" 2>/dev/null || curl -sk -o page "https://localhost:$front_port/"; }
for _ in 1 2 3; do
    front_port=$(free)
    caddyfile >Caddyfile
    start caddy env HOME="$work" caddy run --config Caddyfile --adapter caddyfile
    within 10 answers
    kill -0 "$pid" 2>/dev/null && break
done

block $job '# client.toml' | sed "s/gateway\.example\.com/localhost:$front_port/; s/localhost:3000/127.0.0.1:$(<git.out)/; s/localhost:8080/127.0.0.1:$(<wiki.out)/" >client.toml
start client "${client_command[@]}" --ca "$work/caddy/pki/authorities/local/root.crt" --config client.toml
ask() { curl -sk --resolve "$1:$front_port:127.0.0.1" "https://$1:$front_port/"; }
shows() { [[ $(ask "$1") == "$(expected $job "https://$1/")" ]]; }
for site in git.example.com wiki.example.com www.example.com; do
    check "$job: $site shows what the recipe says" within 10 shows "$site"
done
check "$job: each service has its tunnels" grep -q 'tunnel: git.example.com/0 up' client.log
sed -i 's/wiki\.secret/git.secret/' client.toml
start refused "${client_command[@]}" --ca "$work/caddy/pki/authorities/local/root.crt" --config client.toml
check "$job: the secret of one is none for the other" within 10 grep -q 'service="wiki.example.com" gateway=.* ends: .*403' refused.log
