"""pytest fixtures over `pgentra local up`: a PostgreSQL that takes Microsoft Entra tokens, for a test session.

In conftest.py: pytest_plugins = ["pgentra_local"]
"""

import json
import os
import subprocess

import pytest


@pytest.fixture(scope="session")
def pgentra_cloud():
    """The document of `pgentra local up -o json`. The cloud ends with the session."""
    command = [os.environ.get("PGENTRA", "pgentra"), "local", "up", "-o", "json", "--name", f"pytest-{os.getpid()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line, "the local cloud did not start: see its message above"
            yield json.loads(line)
        finally:
            process.terminate()


@pytest.fixture
def pgentra_host(pgentra_cloud, monkeypatch):
    """A function that gives the test the environment of a host: pgentra_host("aks")."""
    java = os.environ.get("JAVA_TOOL_OPTIONS", "")

    def use(host="vm"):
        names = {name for variables in pgentra_cloud["environments"].values() for name in variables}
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in pgentra_cloud["environments"][host].items():
            monkeypatch.setenv(name, f"{java} {value}".strip() if name == "JAVA_TOOL_OPTIONS" else value)
        return pgentra_cloud["environments"][host]

    return use
