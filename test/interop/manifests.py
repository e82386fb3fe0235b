"""Gives the programs what packaging/ has them started with: arguments, variables, files, and the commands of probes.

manifests.py PROGRAMS WORK: the folder of both programs, and one with a token, tls.crt and tls.key for app.example.com.
"""

import os
import re
import subprocess
import sys

import yaml

programs, work = sys.argv[1:]
NONSENSE = '--log-format "nonsense" must be text or json'


def run(program, arguments, variables, *before):
    command = [*before, f"{programs}/{program}", *arguments]
    # PATH is what `before` is found by; the programs read no such variable.
    variables = {**variables, "PATH": os.environ["PATH"]}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=20)
    return ended.returncode, ended.stderr.strip()


def image(program):
    """The variables of a Dockerfile."""
    text = open(f"Dockerfile.{program.removeprefix('2ptth-')}").read()
    return dict(re.findall(r"^ENV (\w+)=(\S+)$", text, re.M))


def started(where, program, arguments, variables, mounts, probes):
    """mounts: the real path in the place of each that the container has."""
    variables = {**image(program), **variables}
    help = subprocess.run([f"{programs}/{program}", "--help"], capture_output=True, text=True).stdout
    known = set(re.findall(r"\b[A-Z][A-Z_]+\b", " ".join(re.findall(r"\([^()]*\)", help))))
    assert set(variables) <= known, f"{where}: not a variable of {program}: {set(variables) - known}"
    state = variables.get("STATE_DIRECTORY")
    assert state is None or state in mounts, f"{where}: nothing is mounted at {state}"

    def real(text):
        for path in sorted(mounts, key=len, reverse=True):
            text = re.sub(rf"^{re.escape(path)}(?=/|$)", mounts[path], text)
        return text

    there = {name: real(value) for name, value in variables.items()}
    arguments = [real(argument) for argument in arguments]
    if program == "2ptth-server":
        code, said = run(program, [*arguments, "--check"], there)
        assert code == 0, f"{where}: {said}"
    else:
        # It has no dry run, but names all mistakes at once.
        code, said = run(program, [*arguments, "--log-format", "nonsense"], there)
        assert (code, said) == (1, f"{program}: {NONSENSE}"), f"{where}: {said}"
    assert probes, f"{where}: no probe"
    for path, *rest in probes:
        assert path == f"/{program}", f"{where}: {path}"
        # In a network of its own, where nothing answers.
        code, said = run(program, rest, there, "unshare", "--net")
        silent = f"{program}: {variables['ADMIN']} doesn't answer: "
        assert code == 1 and said.startswith(silent), f"{where}: {rest}: {said}"
    print(f"{where}: {program} takes it")


def compose():
    text = open("packaging/compose.yaml").read()
    ours = yaml.safe_load(re.sub(r"\$\{HOST\b[^}]*\}", "app.example.com", text))
    os.makedirs(f"{work}/state", exist_ok=True)
    for name, service in ours["services"].items():
        if not service["image"].startswith("2ptth-"):
            continue
        mounts = {f"/run/secrets/{secret}": f"{work}/token" for secret in service["secrets"]}
        mounts |= {volume.split(":")[1]: f"{work}/state" for volume in service.get("volumes", [])}
        kind, *probe = service["healthcheck"]["test"]
        assert kind == "CMD", kind
        yield f"compose.yaml, {name}", service["image"], service.get("command", []), service["environment"], mounts, [probe]


def kubernetes():
    things = list(yaml.safe_load_all(open("packaging/kubernetes/gateway.yaml")))
    by_kind = {thing["kind"]: thing for thing in things}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {}
    for mount in container["volumeMounts"]:
        mounts[mount["mountPath"]] = folder = f"{work}/{mount['name']}"
        os.makedirs(folder, exist_ok=True)
    for name in "tls.crt", "tls.key":
        os.symlink(f"{work}/{name}", f"{work}/certificate/{name}")
    for name in by_kind["Secret"]["stringData"]:
        os.symlink(f"{work}/token", f"{work}/keys/{name}")
    for name, text in by_kind["ConfigMap"]["data"].items():
        for path, folder in mounts.items():
            text = text.replace(f'"{path}/', f'"{folder}/')
        open(f"{work}/config/{name}", "w").write(text)
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    probes = [container[kind]["exec"]["command"] for kind in ("readinessProbe", "livenessProbe") if "exec" in container[kind]]
    program = container["image"].split(":")[0]
    yield "gateway.yaml", program, container["args"], variables, mounts, probes


for start in [*compose(), *kubernetes()]:
    started(*start)
