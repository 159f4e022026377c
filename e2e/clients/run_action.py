"""Runs a composite action of GitHub as a runner does. Prints its environment and outputs for later steps as JSON.

Usage: run_action.py FOLDER INPUT=VALUE... Variables of this process are those of the job.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

import yaml

folder, *given = sys.argv[1:]
folder = os.path.abspath(folder)
with open(os.path.join(folder, "action.yml"), encoding="utf-8") as file:
    action = yaml.safe_load(file)
inputs = {name: str(it.get("default", "")) for name, it in action["inputs"].items()}
required = {name for name, it in action["inputs"].items() if it.get("required")}
for pair in given:
    name, value = pair.split("=", 1)
    assert name in inputs, f"there is no input {name}"
    inputs[name] = value
    required.discard(name)
assert not required, f"inputs are missing: {required}"


def expand(text):
    """The expressions that these actions use."""
    return re.sub(r"\$\{\{ inputs\.([a-z0-9-]+) \}\}", lambda it: inputs[it[1]], str(text))


def assignments(path):
    """The pairs of an environment file: NAME=VALUE, or NAME<<END and lines up to END."""
    with open(path, encoding="utf-8") as file:
        lines = iter(file.read().splitlines())
    for line in lines:
        name, is_block, end = line.partition("<<")
        if is_block and "=" not in name:
            value = []
            for line in lines:
                if line == end:
                    break
                value.append(line)
            else:
                raise ValueError(f"{name} is not closed")
            yield name, "\n".join(value)
        else:
            name, equals, value = line.partition("=")
            assert equals, line
            yield name, value


assert action["runs"]["using"] == "composite"
environment, outputs, path = {}, {}, []
with tempfile.TemporaryDirectory() as temporary:
    for step in action["runs"]["steps"]:
        files = {name: os.path.join(temporary, name) for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH")}
        for name in files.values():
            open(name, "w").close()
        script = os.path.join(temporary, "script.sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write(step["run"])
        assert step["shell"] == "bash"
        variables = {**os.environ, **environment, **files, "GITHUB_ACTION_PATH": folder}
        variables.update({name: expand(value) for name, value in step.get("env", {}).items()})
        variables["PATH"] = os.pathsep.join([*reversed(path), variables["PATH"]])
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", script]
        done = subprocess.run(words, env=variables, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if done.returncode:
            sys.exit(done.returncode)
        environment.update(assignments(files["GITHUB_ENV"]))
        outputs.update(assignments(files["GITHUB_OUTPUT"]))
        with open(files["GITHUB_PATH"], encoding="utf-8") as file:
            path += file.read().splitlines()
print(json.dumps({"environment": environment, "outputs": outputs, "path": path}))
