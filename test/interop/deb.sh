#!/usr/bin/env bash
# The Debian packages, installed into a root that has nothing else, started from there, and purged.
. "$(dirname "$0")/lib.sh"
cd "$root"

need dpkg-deb dpkg
need readelf binutils
need useradd passwd

# Seconds of compression are for a release.
export DPKG_DEB_COMPRESSOR_TYPE=gzip DPKG_DEB_COMPRESSOR_LEVEL=1
cargo run --quiet --locked --bin manual -- "$work/manual"
clean=$work/clean
mkdir -p "$clean"/{etc,var/lib/dpkg/{info,updates}}
touch "$clean"/etc/{passwd,group,shadow,gshadow} "$clean"/var/lib/dpkg/{status,available}
# The scripts of the packages run on this machine and are told of the root by DPKG_ROOT; and there is no libc6.
into() { dpkg --root="$clean" --force-script-chrootless,depends,not-root --log="$work/dpkg.log" "$@"; }

for kind in server client; do
    program=2ptth-$kind
    check "$program is packaged" packaging/deb.sh "$program" "$bin/$program" "$work/manual" "$work/debs"
    check "$program is installed" into --install "$work"/debs/"$program"_*.deb
    same "its state" installed "$(dpkg-query --admindir="$clean/var/lib/dpkg" -Wf '${db:Status-Status}' "$program")"
    same "it runs" "$program $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" "$("$clean/usr/bin/$program" --version)"
    check "it has a user of its own" grep -q "^_$program:.*/nologin$" "$clean/etc/passwd"
    check "its user is the unit's" grep -qx "User=_$program" "$clean/lib/systemd/system/$program.service"
    check "the unit runs what is installed" grep -qx "ExecStart=/usr/bin/$program --config /etc/2ptth/$kind.toml" "$clean/lib/systemd/system/$program.service"
    for file in share/man/man1/$program.1.gz share/bash-completion/completions/$program share/zsh/vendor-completions/_$program share/fish/vendor_completions.d/$program.fish; do
        check "$file" test -s "$clean/usr/$file"
    done
    check "its settings survive an upgrade" test "$(dpkg-query --admindir="$clean/var/lib/dpkg" -Wf '${Conffiles}' "$program" | awk '{print $1}')" = "/etc/2ptth/$kind.toml"
done

# From there, with the file of the package and a certificate of its own.
server_command=("$clean/usr/bin/2ptth-server" --config "$clean/etc/2ptth/server.toml")
client_command=("$clean/usr/bin/2ptth-client" --config "$clean/etc/2ptth/client.toml")
gateway --listen 127.0.0.1:0 --self-signed
client "${client_args[@]}"
same "a request goes through both" 200 "$(curl -sk -o "$work/body" -w '%{http_code}' "$url/")"

for program in 2ptth-server 2ptth-client; do
    check "$program is purged" into --purge "$program"
done
same "nothing of them is left but the users" "" "$(find "$clean" -path "$clean/var" -prune -o -type f -printf '%P\n' | grep -vE '^etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|lock$' || true)"
