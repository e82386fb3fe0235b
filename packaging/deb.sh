#!/usr/bin/env bash
# packaging/deb.sh PROGRAM BINARY MANUAL FOLDER [ARCHITECTURE]: makes FOLDER/PROGRAM_VERSION_ARCHITECTURE.deb of a built
# binary and of what `cargo run --bin manual -- MANUAL` wrote. Needs dpkg-deb and readelf.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$1 binary=$2 manual=$3 folder=$4 architecture=${5-$(dpkg --print-architecture)}
kind=${program#2ptth-} user=_$program
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# mktemp keeps others out.
chmod 755 "$root"

install -D "$binary" "$root/usr/bin/$program"
install -Dm 644 "packaging/debian/$kind.toml" "$root/etc/2ptth/$kind.toml"
install -Dm 644 "$manual/$program.bash" "$root/usr/share/bash-completion/completions/$program"
install -Dm 644 "$manual/_$program" "$root/usr/share/zsh/vendor-completions/_$program"
install -Dm 644 "$manual/$program.fish" "$root/usr/share/fish/vendor_completions.d/$program.fish"
install -Dm 644 LICENSE.txt "$root/usr/share/doc/$program/copyright"
install -d "$root/usr/share/man/man1" "$root/lib/systemd/system" "$root/DEBIAN"
gzip -9n <"$manual/$program.1" >"$root/usr/share/man/man1/$program.1.gz"
chmod 644 "$root/usr/share/man/man1/$program.1.gz"

# The unit of packaging/, with the program in /usr/bin, a user that owns the secrets, and its settings in /etc.
for unit in packaging/"$program".{service,socket}; do
    [[ ! -e $unit ]] || sed -e '/^#/d; /^LoadCredential=/d; /^StateDirectory=/d' \
        -e "s|^DynamicUser=yes|User=$user\nStateDirectory=$program|" \
        -e "s|^ExecStart=.*|ExecStart=/usr/bin/$program --config /etc/2ptth/$kind.toml|" \
        "$unit" >"$root/lib/systemd/system/$(basename "$unit")"
done
chmod 644 "$root"/lib/systemd/system/*

depends=passwd
# A static binary has no interpreter.
[[ $(readelf -lW "$binary") != *INTERP* ]] || depends+=', libc6 (>= 2.34), libgcc-s1'
cat >"$root/DEBIAN/control" <<CONTROL
Package: $program
Version: $version
Architecture: $architecture
Maintainer: 2ptth <2ptth@localhost>
Section: net
Priority: optional
Depends: $depends
Installed-Size: $(du -sk "$root" | cut -f 1)
Description: $(sed -n 's/^description = "The \(.*\)\."/\1/p' "$kind/Cargo.toml")
 HTTP/2, backwards: a web server behind NAT dials out, and visitors' requests
 come in on the connection that it dialled.
CONTROL
echo "/etc/2ptth/$kind.toml" >"$root/DEBIAN/conffiles"
# DPKG_ROOT (dpkg(1)) is empty but where another root is filled from outside. Nothing is enabled or started at first:
# without settings there is nothing to serve.
cat >"$root/DEBIAN/postinst" <<POSTINST
#!/bin/sh
set -e
if [ "\$1" = configure ]; then
    grep -q '^$user:' "\$DPKG_ROOT/etc/passwd" || useradd \${DPKG_ROOT:+--prefix "\$DPKG_ROOT"} --system --user-group \\
        --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin $user
    if [ -z "\$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload || true
        [ -z "\$2" ] || systemctl try-restart $program.service || true
    fi
fi
POSTINST
cat >"$root/DEBIAN/prerm" <<PRERM
#!/bin/sh
set -e
if [ "\$1" = remove ] && [ -z "\$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now $program.service || true
fi
PRERM
# The user stays: files that belong to it might, too.
cat >"$root/DEBIAN/postrm" <<POSTRM
#!/bin/sh
set -e
[ "\$1" != purge ] || rm -rf "\$DPKG_ROOT/var/lib/$program"
if [ -z "\$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || true
fi
POSTRM
chmod 755 "$root"/DEBIAN/{postinst,prerm,postrm}
mkdir -p "$folder"
dpkg-deb --root-owner-group --build "$root" "$folder/${program}_${version}_$architecture.deb"
