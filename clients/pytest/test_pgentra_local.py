import os
import subprocess

import pytest

pytest_plugins = ["pgentra_local"]


@pytest.mark.parametrize(("host", "role"), [("vm", "myVm"), ("aks", "myIdentity")])
def test_a_program_signs_in(pgentra_host, host, role):
    assert pgentra_host(host)["PGUSER"] == role
    command = ["pgentra", "query", "-c", "SELECT current_user"]
    assert role in subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def own_java_options(monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Down=yes")


def test_the_options_of_the_user_stay(own_java_options, pgentra_host):
    clouds = pgentra_host()["JAVA_TOOL_OPTIONS"]
    assert os.environ["JAVA_TOOL_OPTIONS"] == f"-Down=yes {clouds}"
