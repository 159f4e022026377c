import subprocess

import pytest

pytest_plugins = ["pgentra_local"]


@pytest.mark.parametrize(("host", "role"), [("vm", "myVm"), ("aks", "myIdentity")])
def test_a_program_signs_in(pgentra_host, host, role):
    assert pgentra_host(host)["PGUSER"] == role
    command = ["pgentra", "query", "-c", "SELECT current_user"]
    assert role in subprocess.run(command, check=True, capture_output=True, text=True).stdout
