#!/usr/bin/env bash
# A tunnel on loopback as tshark sees it with the client's keys (docs/wireshark.md): the side that was dialled sends the
# preface and asks. Needs the right to capture.
. "$(dirname "$0")/lib.sh"
need tshark tshark
need curl curl

gateway --self-signed --listen 127.0.0.1:0
keys=$work/keys record=$work/tunnel.pcapng

# Tells that it records when it does.
start tshark tshark -i lo -f "tcp port $port" -w "$record"
tshark_pid=$pid
within 20 grep -qs 'Capturing on' "$work/tshark.log"
# dumpcap opens the file when it has opened the interface.
within 20 test -s "$record"

start client env SSLKEYLOGFILE="$keys" TOKEN="$token" "${client_command[@]}" --tunnels 1 "${client_args[@]}"
client_pid=$pid
within 20 grep -qs 'up; inverted' "$work/client.log"
check 'the client warns that it writes keys' grep -q 'SSLKEYLOGFILE is set' "$work/client.log"
check 'a visitor gets the page' curl -fksS -o /dev/null "$url/page-for-tshark"
stop "$client_pid"

read_along() {
    tshark -r "$record" -o "tls.keylog_file:$keys" -d "tcp.port==$port,tls" "$@" 2>/dev/null
}
recorded() { [[ -n $(read_along -Y 'http2.type == 7' -T fields -e frame.number) ]]; }
check 'the end of the tunnel is in the recording' within 20 recorded
stop "$tshark_pid"

label=$(read_along -Y 'tls.handshake.type == 1' -T fields -e tls.handshake.extensions_alpn_str)
check 'the client offered the label 2ptth' grep -qx 2ptth <<<"$label"
preface=$(read_along -Y http2.magic -T fields -e tcp.srcport | sort -u)
same 'the preface comes from the port that was dialled' "$port" "$preface"
asked=$(read_along -Y 'http2.headers.path contains "page-for-tshark"' -T fields -e tcp.srcport -e http2.headers.method)
same 'so does the request' "$port"$'\t'GET "$asked"
same 'without keys nothing is read' '' "$(tshark -r "$record" -d "tcp.port==$port,tls" -Y http2.headers.method 2>/dev/null)"
