#!/usr/bin/env bash
# packaging/release.sh [FOLDER]: what can be downloaded, in FOLDER (default target/dist): for each target a tarball with
# both programs, man pages, completions, units, licences and an SBOM; for Debian a package of each program; SHA256SUMS.
#
# TARGETS names the targets; by default these of them that `rustup target list --installed` has, and whose C compiler is
# there. All binaries are static.
#   x86_64-unknown-linux-musl     rustup target add …; apt-get install musl-tools
#   aarch64-unknown-linux-musl    rustup target add …; a compiler aarch64-linux-musl-gcc
#   aarch64-unknown-linux-gnu     rustup target add …; apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
# PTTH_BIN is for trying this script: binaries that are there already, in place of those of the first target.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1-${CARGO_TARGET_DIR:-target}/dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The same sources give the same tarballs (reproducible-builds.org, SOURCE_DATE_EPOCH).
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compiler() {
    case $1 in
        x86_64-unknown-linux-musl) echo musl-gcc ;;
        aarch64-unknown-linux-musl) echo aarch64-linux-musl-gcc ;;
        aarch64-unknown-linux-gnu) echo aarch64-linux-gnu-gcc ;;
        *) echo cc ;;
    esac
}

targets() {
    local target
    for target in {x86_64,aarch64}-unknown-linux-musl aarch64-unknown-linux-gnu; do
        if ! rustup target list --installed | grep -qx "$target"; then
            echo "skipped: $target isn't installed" >&2
        elif ! command -v "$(compiler "$target")" >/dev/null; then
            echo "skipped: $target has no $(compiler "$target")" >&2
        else
            echo "$target"
        fi
    done
}

# build TARGET: sets `built` to the folder of the binaries.
build() {
    local target=$1 name=${1//-/_}
    if [[ -n ${PTTH_BIN-} ]]; then
        built=$PTTH_BIN
        return
    fi
    export "CC_$name=$(compiler "$target")"
    name=${name^^}
    # rustc brings musl's own files to link with. musl-gcc would name an interpreter in a static program, which then doesn't
    # start where there is none.
    export "CARGO_TARGET_${name}_LINKER=$(compiler "$target" | sed 's/^musl-gcc$/cc/')"
    # glibc from 2.34 on resolves names in a static binary, too.
    export "CARGO_TARGET_${name}_RUSTFLAGS=-C target-feature=+crt-static"
    cargo build --release --locked --target "$target" -p ptth-server -p ptth-client
    built=${CARGO_TARGET_DIR:-target}/$target/release
    local program
    for program in 2ptth-{server,client}; do
        [[ $(readelf -lW "$built/$program") != *INTERP* ]] || { echo "$built/$program isn't static" >&2; return 1; }
    done
}

# try TARBALL: both programs start where there is nothing but the tarball, no libc either.
try() {
    local root program said
    root=$(mktemp -dp "$work")
    tar xzf "$1" -C "$root" --strip-components 1
    for program in 2ptth-{server,client}; do
        # A user's own namespace: chroot, without being root.
        said=$(unshare --map-root-user chroot "$root" "/$program" --version) || true
        [[ $said == "$program $version" ]] || { echo "$1: $program doesn't start: $said" >&2; return 1; }
    done
}

mkdir -p "$out"
cargo run --quiet --locked --bin manual -- "$work/manual"
for target in ${TARGETS-$(targets)}; do
    build "$target"
    name=2ptth-$version-$target
    tree=$work/$name
    install -Dt "$tree" "$built"/2ptth-{server,client}
    install -Dm 644 -t "$tree" LICENSE.txt README.md
    install -Dm 644 -t "$tree/systemd" packaging/*.{service,socket}
    install -Dm 644 -t "$tree/man" "$work"/manual/*.1
    install -Dm 644 -t "$tree/completions" "$work"/manual/{*.bash,*.fish,_*}
    install -d "$tree/sbom"
    node packaging/sbom.mjs "$target" "$tree/sbom"
    mv "$tree/sbom/THIRD-PARTY.txt" "$tree"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -c "$name" |
        gzip -9n >"$out/$name.tar.gz"
    if [[ $target != "$(uname -m)"-* || $(readelf -lW "$built/2ptth-server") == *INTERP* ]]; then
        echo "skipped: $name isn't tried: its programs are another machine's, or aren't static" >&2
    else
        try "$out/$name.tar.gz"
    fi
    if ! command -v dpkg-deb >/dev/null; then
        echo "skipped: no dpkg-deb for Debian's packages" >&2
    else
        case $target in
            x86_64-*) architecture=amd64 ;;
            *) architecture=arm64 ;;
        esac
        for program in 2ptth-{server,client}; do
            packaging/deb.sh "$program" "$built/$program" "$work/manual" "$out" "$architecture"
        done
    fi
    [[ -z ${PTTH_BIN-} ]] || break
done
[[ -n ${name-} ]] || { echo "no target: see the head of this script" >&2; exit 1; }
(cd "$out" && shopt -s nullglob && sha256sum -- *.tar.gz *.deb >SHA256SUMS && sha256sum --quiet -c SHA256SUMS)
ls -l "$out"
