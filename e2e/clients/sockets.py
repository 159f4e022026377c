"""Stands in for systemd: listens on a TCP socket and a Unix socket (whose path is the first argument), and runs a program
that inherits them (sd_listen_fds(3))."""
import os
import socket
import sys

path, *program = sys.argv[1:]
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind(path)
unix.listen()
# Out of the way first: either may have a number that the other is to get.
high = [os.dup2(each.fileno(), 100 + number) for number, each in enumerate((tcp, unix))]
for number, each in enumerate(high):
    os.dup2(each, 3 + number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="tcp:unix")
os.execvp(program[0], program)
