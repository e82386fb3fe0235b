#!/usr/bin/env bash
# Makes the image that the Dockerfiles build in, where no registry of images can be reached:
# Debian from its packages, this machine's Rust toolchain, and the crates of Cargo.lock.
# Prints its name, for `--build-arg RUST_IMAGE=`. The second image, `scratch`, needs no making.
# Made again only when the Debian release, the toolchain or Cargo.lock changed. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends "$2"; } >&2
}
need buildah buildah
need debootstrap debootstrap

sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
cargo_home=${CARGO_HOME:-$HOME/.cargo}
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
# The mirror that this machine's own apt uses.
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
    awk -v release="$release" '$1 == release { print $2; exit }')

debian=localhost/2ptth-debian:$release
rust=localhost/2ptth-rust:$( (rustc -vV; cat Cargo.lock; cat "$0") | sha256sum | cut -c1-12)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

image() { # image FROM NAME [buildah config options]: what is in $work/root, on top of FROM
    local container
    container=$(buildah from --pull-never "$1")
    buildah add -q "$container" "$work/root" / >/dev/null
    buildah config "${@:3}" "$container"
    buildah commit -q --rm "$container" "$2" >/dev/null
    rm -rf "$work/root"
}

if ! buildah inspect --type image "$debian" >/dev/null 2>&1; then
    debootstrap --variant=minbase --include=gcc,libc6-dev "$release" "$work/root" "$mirror" >&2
    rm -rf "$work/root"/var/cache/apt/archives/*.deb "$work/root"/var/lib/apt/lists/* "$work/root"/dev/*
    image scratch "$debian"
fi
if ! buildah inspect --type image "$rust" >/dev/null 2>&1; then
    cargo fetch --locked >&2
    mkdir -p "$work/root/rust/bin" "$work/root/rust/lib/rustlib" "$work/root/cargo"
    cp -a "$sysroot"/bin/{cargo,rustc} "$work/root/rust/bin"
    cp -a "$sysroot"/lib/*.so* "$work/root/rust/lib"
    cp -a "$sysroot/lib/rustlib/$host" "$work/root/rust/lib/rustlib"
    mkdir "$work/root/cargo/registry"
    cp -a "$cargo_home"/registry/{index,cache} "$work/root/cargo/registry"
    # Where crates come from may have been replaced; the index's folder is named after it.
    cp -a "$cargo_home"/config.toml "$work/root/cargo" 2>/dev/null || true
    image "$debian" "$rust" --env PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env CARGO_HOME=/cargo --env CARGO_NET_OFFLINE=true
fi
echo "$rust"
