#!/usr/bin/env bash
# Checks packaging/compose.yaml and packaging/kubernetes/ with the schemas of their makers, and with both programs, which get
# what they would be started with. Skipped where the checkers can't be had from PyPI.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

need python3 python3-venv
tools=${CARGO_TARGET_DIR:-target}/schemas
if [[ ! -x $tools/bin/check-jsonschema || ! -x $tools/bin/kubernetes-validate ]]; then
    { python3 -m venv "$tools" && "$tools/bin/pip" install -q check-jsonschema==0.39.0 kubernetes-validate==1.37.0; } >&2 || {
        echo 'skipped: no schema checkers'
        exit 0
    }
fi

# Both have the schemas with them: nothing is fetched.
check 'compose.yaml is what the Compose specification says' \
    "$tools/bin/check-jsonschema" --builtin-schema vendor.compose-spec packaging/compose.yaml
for file in packaging/kubernetes/*.yaml; do
    check "$(basename "$file") is what Kubernetes takes" "$tools/bin/kubernetes-validate" --strict "$file"
done

# Each volume that is mounted is there, and the other way round; so is each file that the configuration names.
cat >"$work/fits.py" <<'P'
import sys, tomllib, yaml
things = {thing["kind"]: thing for thing in yaml.safe_load_all(open(sys.argv[1]))}
pod = things["Deployment"]["spec"]["template"]
(container,) = pod["spec"]["containers"]
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}, mounts
labels = pod["metadata"]["labels"].items()
for selector in (
    things["Service"]["spec"]["selector"],
    things["Deployment"]["spec"]["selector"]["matchLabels"],
    things["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
):
    assert selector.items() <= labels, selector
config = tomllib.loads(things["ConfigMap"]["data"]["gateway.toml"])
files = [config["cert"], config["key"]]
files += [allow["key_file"] for route in config["route"] for allow in route["allow"]]
for file in files:
    assert file.rsplit("/", 1)[0] in mounts.values(), file
port = container["ports"][0]["containerPort"]
assert config["listen"].endswith(f":{port}"), port
P
check 'the parts of gateway.yaml fit each other' "$tools/bin/python" "$work/fits.py" packaging/kubernetes/gateway.yaml

# A token and a certificate, as their users would put them there.
need openssl openssl
need unshare util-linux
gateway --listen 127.0.0.1:0 --self-signed
stop "$gateway_pid"
(umask 077 && echo "$token" >"$work/token")
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=app.example.com -days 30 \
    -addext subjectAltName=DNS:app.example.com -keyout "$work/tls.key" -out "$work/tls.crt" 2>"$work/openssl.log"
check 'the programs take what compose.yaml and gateway.yaml start them with' \
    "$tools/bin/python" test/interop/manifests.py "$bin" "$work"
