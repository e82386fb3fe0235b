# Sourced by the scripts: starts the gateway and the client, waits for conditions, counts checks,
# and ends what was started, by pid.
# shellcheck shell=bash
set -euo pipefail

work=$(mktemp -d)
pids=()
failed=0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${PTTH_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}
# What `gateway` and `client` run; smoke.sh puts the images in their place.
server_command=("$bin/2ptth-server")
client_command=("$bin/2ptth-client")

finish() {
    local code=$? pid
    for pid in "${pids[@]}"; do stop "$pid"; done
    undo || true
    if ((code || failed)); then
        for log in "$work"/*.{out,log}; do
            [[ -s $log ]] && printf '%s\n' "--- $(basename "$log")" && tail -n 20 "$log"
        done >&2
    fi
    rm -rf "$work"
    exit $((code ? code : failed > 0))
}
# A script that made more than processes and files in $work takes it back here.
undo() { :; }
trap finish EXIT
trap 'exit 130' INT TERM

# need COMMAND PACKAGE: installs Debian's package if the command is missing.
need() {
    command -v "$1" >/dev/null && return
    [[ -d /etc/apt ]] || { echo "missing: $1" >&2; return 1; }
    # 101: no daemon is started because its package was installed.
    [[ -e /usr/sbin/policy-rc.d ]] || {
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        policy_made=1
    }
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2"; } >&2
    [[ -z ${policy_made-} ]] || rm /usr/sbin/policy-rc.d
    unset policy_made
}

# start NAME COMMAND…: runs it in the background, output to NAME.out and NAME.log; its pid is in $pid.
start() {
    # Emptied here, since the background might do so only after the first look at them.
    : >"$work/$1.out"
    : >"$work/$1.log"
    "${@:2}" >"$work/$1.out" 2>"$work/$1.log" &
    pid=$!
    pids+=("$pid")
}

# stop PID: asks, and insists after 10 s.
stop() {
    kill "$1" 2>/dev/null || return 0
    for _ in {1..200}; do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.05
    done
    kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# free [HOST]: a port that was free a moment ago.
free() { node -e 'const s=require("net").createServer().listen(0,process.argv[1],()=>{console.log(s.address().port);s.close()})' "${1-127.0.0.1}"; }

# within SECONDS COMMAND…: repeats the command until it succeeds.
within() {
    local deadline=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# check SENTENCE COMMAND…: an `ok` or `not ok` line.
check() {
    if "${@:2}" >"$work/check.log" 2>&1; then
        echo "ok - $1"
        rm "$work/check.log"
    else
        echo "not ok - $1"
        failed=$((failed + 1))
        sed 's/^/# /' "$work/check.log"
    fi
}

# same SENTENCE EXPECTED ACTUAL
same() {
    check "$1" test "$2" = "$3"
    [[ $2 == "$3" ]] || printf '# expected %q\n# got      %q\n' "$2" "$3"
}

# gateway [options]: starts one. Its last printed line is the client's whole command, but for the origin:
# $token, $client_args (an array that ends with the gateway's address) and $port come from there.
gateway() {
    start gateway "${server_command[@]}" "$@"
    # shellcheck disable=SC2034  # for the scripts
    gateway_pid=$pid
    within 10 grep -qs 2ptth-client "$work/gateway.out" || { echo "the gateway printed no client command" >&2; return 1; }
    local word
    token=
    client_args=()
    for word in $(tail -n 1 "$work/gateway.out"); do
        case $word in
            TOKEN=*) token=${word#TOKEN=} ;;
            2ptth-client | http://*) ;;
            *) client_args+=("$word") ;;
        esac
    done
    port=${client_args[-1]##*:}
    [[ ${client_args[-1]} == *:* ]] || port=443
    url=https://localhost:$port
}

# client [arguments]: starts one and waits until requests come through.
client() {
    TOKEN=$token start client "${client_command[@]}" "$@"
    # shellcheck disable=SC2034
    client_pid=$pid
    within 10 up || { echo "no request came through" >&2; return 1; }
}

# Whether a request finds its way to some backend.
up() {
    local status
    status=$(curl -sk -o "$work/up.body" -w '%{http_code}' "$url/") || return 1
    [[ $status != 502 && $status != 503 ]] || ! grep -qi upstream "$work/up.body"
}
