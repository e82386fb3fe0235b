#!/usr/bin/env bash
# Builds both images and curls through them: with docker where its engine runs, else with buildah, as root.
# RUST_IMAGE says what to build in; without it docker takes the Dockerfiles' default, buildah what base-images.sh makes.
set -euo pipefail
. "$(dirname "$0")/interop/lib.sh"
cd "$root"

# Both variants define `size` and `user` of an image, and set:
#   server_command, client_command   as lib.sh runs them, in a network where this user may bind port 443, as in Docker's
#   named_command                    the client in a network whose name server knows `gateway.test`
with_docker() {
    net=2ptth-smoke-$$
    docker network create "$net" >/dev/null
    undo() { docker network rm "$net" >/dev/null; }
    server_command=(docker run --rm --name "$net" --network "$net" --network-alias gateway.test -p 127.0.0.1::443 2ptth-server)
    client_command=(docker run --rm -e TOKEN --network "container:$net" 2ptth-client)
    named_command=(docker run --rm -e TOKEN --network "$net" 2ptth-client)
    size() { docker image inspect -f '{{.Size}}' "$1"; }
    user() { docker image inspect -f '{{.Config.User}}' "$1"; }
    published() { docker port "$net" 443/tcp | head -n 1; }
}

with_buildah() {
    ip link set lo up
    echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
    local image container
    undo() { buildah rm "${containers[@]}" >/dev/null; }
    containers=()
    declare -gA rootfs
    for image in 2ptth-server 2ptth-client; do
        container=$(buildah from --pull-never "localhost/$image")
        containers+=("$container")
        rootfs[$image]=$(buildah mount "$container")
        # What Docker, too, puts into every container.
        mkdir "${rootfs[$image]}/etc"
        echo 'nameserver 127.0.0.1' >"${rootfs[$image]}/etc/resolv.conf"
        echo '127.0.0.1 localhost' >"${rootfs[$image]}/etc/hosts"
    done
    start dns node test/dns.mjs 127.0.0.1 53 gateway.test
    within 10 grep -q listening "$work/dns.out"
    size() { stat -c %s "${rootfs[$1]}/$1"; }
    user() { buildah inspect --type image -f '{{.OCIv1.Config.User}}' "localhost/$1"; }
    published() { echo localhost:443; }
    in_image() { echo chroot "--userspec=$(user "$1")" "${rootfs[$1]}" "$(entrypoint "$1")"; }
    entrypoint() { buildah inspect --type image -f '{{index .OCIv1.Config.Entrypoint 0}}' "localhost/$1"; }
    read -ra server_command <<<"$(in_image 2ptth-server)"
    read -ra client_command <<<"$(in_image 2ptth-client)"
    named_command=("${client_command[@]}")
}

small() { (($(size "$1") < 11 * 1024 * 1024)); }
unprivileged() { [[ $(user "$1") =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ ]]; }
possible() { [[ $(curl -sSkf "$@" -w ' %{http_version}' "$url/") == *possible!*" $version" ]]; }
stage() { sed -n '/^ARG/,/^FROM scratch/p' "Dockerfile.$1"; }

build() { # build COMMAND…
    local image
    for image in 2ptth-server 2ptth-client; do
        "$@" ${RUST_IMAGE:+--build-arg "RUST_IMAGE=$RUST_IMAGE"} -f "Dockerfile.${image#2ptth-}" -t "$image" . >&2
    done
}

try() {
    local image version
    check 'both images are built in the same stage' test "$(stage server)" = "$(stage client)"
    for image in 2ptth-server 2ptth-client; do
        check "$image: under 11 MiB ($(size "$image") bytes)" small "$image"
        check "$image: runs as an ordinary user" unprivileged "$image"
    done
    gateway --self-signed
    url=https://$(published)
    client "${client_args[@]}"
    version=1.1 check 'the printed command, with the demo as origin: HTTP/1.1' possible --http1.1
    version=2 check 'the printed command, with the demo as origin: HTTP/2' possible --http2
    stop "$client_pid"
    client_command=("${named_command[@]}")
    client_args[-1]=gateway.test
    client "${client_args[@]}"
    version=2 check 'names resolve in the image of the client' possible --http2
}

need curl curl
if docker info >/dev/null 2>&1; then
    build docker build
    with_docker
elif [[ ${1-} != run ]]; then
    need node nodejs
    need ip iproute2
    RUST_IMAGE=${RUST_IMAGE:-$(test/base-images.sh)}
    build buildah bud --layers --isolation chroot
    unshare --net "$0" run
    exit
else
    with_buildah
fi
try
