#!/usr/bin/env bash
# The gateway's metrics as Prometheus' own promtool reads them, with some traffic, and their number after hosts that
# strangers chose.
. "$(dirname "$0")/lib.sh"
need promtool prometheus
need curl curl

start gateway "${server_command[@]}" --self-signed --listen 127.0.0.1:0 --admin 127.0.0.1:0
gateway_pid=$pid
for _ in $(seq 100); do
    admin=$(sed -n 's/.*admin: listening on //p' "$work/gateway.log")
    port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/gateway.out" | tail -n 1)
    [[ -z $admin || -z $port ]] || break
    sleep 0.1
done

metrics() { curl -fsS "$@" "http://$admin/metrics"; }

curl -ksS -o /dev/null "https://127.0.0.1:$port/"
metrics >"$work/text"
metrics -H 'Accept: application/openmetrics-text; version=1.0.0' >"$work/open"
promtool check metrics <"$work/text"
# promtool reads Prometheus' text; of OpenMetrics it takes all but the last line and the types that it doesn't know.
[[ $(tail -n 1 "$work/open") == '# EOF' ]]
before=$(grep -c '^ptth_' "$work/text")

for n in $(seq 1000); do
    printf 'next\nurl = "https://127.0.0.1:%s/%s"\nheader = "Host: h%s.example"\ninsecure\nsilent\noutput = /dev/null\n' "$port" "$n" "$n"
done | tail -n +2 >"$work/hosts"
curl -K "$work/hosts"
metrics >"$work/after"
promtool check metrics <"$work/after"
after=$(grep -c '^ptth_' "$work/after")
((after <= before + 2)) || { echo "$before series became $after"; exit 1; }
grep -q '^ptth_exchanges_total{route="other",class="5xx",party="backend"} 1001$' "$work/after"
kill -0 "$gateway_pid"
echo "$after series, promtool accepts them"
