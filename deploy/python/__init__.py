"""pgentra: PostgreSQL without passwords, on Azure identities. The package carries the program `pgentra`."""

import os
import sysconfig


def binary():
    """Where pip has put the program `pgentra`. Raises FileNotFoundError if it is in none of the folders for scripts."""
    user = sysconfig.get_preferred_scheme("user") if hasattr(sysconfig, "get_preferred_scheme") else "posix_user"
    # `pip install --target FOLDER` puts programs into FOLDER/bin.
    beside = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin")
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", scheme=user), beside]
    for folder in folders:
        path = os.path.join(folder, "pgentra")
        if os.path.isfile(path):
            return path
    raise FileNotFoundError("no program pgentra in " + ", ".join(folders))
