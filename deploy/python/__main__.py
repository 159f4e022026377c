"""`python -m pgentra`: this process becomes the program `pgentra`."""

import os
import sys

from pgentra import binary

if __name__ == "__main__":
    program = binary()
    os.execv(program, [program, *sys.argv[1:]])
