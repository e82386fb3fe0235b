#!/usr/bin/env bash
# Builds both images and curls through them: with docker where its engine runs, else with buildah, as root.
# RUST_IMAGE says what to build in; without it docker takes the Dockerfiles' default, buildah what base-images.sh makes.
set -euo pipefail
. "$(dirname "$0")/interop/lib.sh"
cd "$root"

# Both variants define `size`, `user` and `healthcheck` (a word a line) of an image, `inside IMAGE COMMAND…`, which runs a
# command in the container of the image, and set:
#   server_command, client_command   as lib.sh runs them, in a network where this user may bind port 443, as in Docker's
#   named_command                    the client in a network whose name server knows `gateway.test`
with_docker() {
    net=2ptth-smoke-$$
    docker network create "$net" >/dev/null
    undo() { docker network rm "$net" >/dev/null; }
    server_command=(docker run --rm --name "$net-server" --network "$net" --network-alias gateway.test -p 127.0.0.1::443 2ptth-server)
    client_command=(docker run --rm --name "$net-client" -e TOKEN --network "container:$net-server" 2ptth-client)
    named_command=(docker run --rm --name "$net-client" -e TOKEN --network "$net" 2ptth-client)
    size() { docker image inspect -f '{{.Size}}' "$1"; }
    user() { docker image inspect -f '{{.Config.User}}' "$1"; }
    healthcheck() { docker image inspect -f '{{range .Config.Healthcheck.Test}}{{println .}}{{end}}' "$1"; }
    inside() { docker exec "$net-${1#2ptth-}" "${@:2}"; }
    published() { docker port "$net-server" 443/tcp | head -n 1; }
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
    # buildah has no health checks of its own, but keeps the Dockerfile's in an image of Docker's format.
    healthcheck() { buildah inspect --type image -f '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' "localhost/$1"; }
    variables() { buildah inspect --type image -f '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "localhost/$1"; }
    entrypoint() { buildah inspect --type image -f '{{index .OCIv1.Config.Entrypoint 0}}' "localhost/$1"; }
    published() { echo localhost:443; }
    in_image() { echo env "$(variables "$1")" chroot "--userspec=$(user "$1")" "${rootfs[$1]}"; }
    inside() {
        local command
        read -rd '' -a command <<<"$(in_image "$1")" || true
        "${command[@]}" "${@:2}"
    }
    read -rd '' -a server_command <<<"$(in_image 2ptth-server) $(entrypoint 2ptth-server)" || true
    read -rd '' -a client_command <<<"$(in_image 2ptth-client) $(entrypoint 2ptth-client)" || true
    named_command=("${client_command[@]}")
}

small() { (($(size "$1") < 10 * 1024 * 1024)); }
unprivileged() { [[ $(user "$1") =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ ]]; }
# health IMAGE STATUS: what HEALTHCHECK says ends with that, in the container of the image. Docker takes 0 as healthy, 1
# as unhealthy.
health() {
    local words code=0
    mapfile -t words < <(healthcheck "$1")
    [[ ${words[0]-} == CMD ]] || { echo "no HEALTHCHECK"; return 1; }
    inside "$1" "${words[@]:1}" || code=$?
    ((code == $2)) || { echo "${words[*]:1}: $code"; return 1; }
}
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
        check "$image: under 10 MiB ($(size "$image") bytes)" small "$image"
        check "$image: runs as an ordinary user" unprivileged "$image"
    done
    gateway --self-signed
    url=https://$(published)
    check 'the gateway is unhealthy without a tunnel' health 2ptth-server 1
    client "${client_args[@]}"
    for image in 2ptth-server 2ptth-client; do
        check "$image: healthy with a tunnel" within 10 health "$image" 0
    done
    version=1.1 check 'the printed command, with the demo as origin: HTTP/1.1' possible --http1.1
    version=2 check 'the printed command, with the demo as origin: HTTP/2' possible --http2
    stop "$client_pid"
    check 'the gateway is unhealthy when the tunnel is gone' within 10 health 2ptth-server 1
    client_command=("${named_command[@]}")
    client_args[-1]=gateway.test
    client "${client_args[@]}"
    version=2 check 'names resolve in the image of the client' possible --http2
    stop "$gateway_pid"
    check 'the client is unhealthy without a gateway' within 10 health 2ptth-client 1
}

need curl curl
if docker info >/dev/null 2>&1; then
    build docker build
    with_docker
elif [[ ${1-} != run ]]; then
    need node nodejs
    need ip iproute2
    RUST_IMAGE=${RUST_IMAGE:-$(test/base-images.sh)}
    # The OCI's format has no HEALTHCHECK.
    build buildah bud --layers --isolation chroot --format docker
    unshare --net "$0" run
    exit
else
    with_buildah
fi
try
