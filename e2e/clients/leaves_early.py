"""Clients that ask for more than the buffers on the way hold, and leave or are ended before they have read it.

Usage: python leaves_early.py WAY...   where a WAY is a folder of a Unix socket, or a host. PGPORT, PGUSER and PGDATABASE say the rest.
Prints a line for each answer that a client did not get whole, and in the end how many were whole, and by how many server processes.
"""

import os
import socket
import struct
import sys
import time

DEADLINE = 60


class Session:
    def __init__(self, way, name):
        if way.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(f"{way}/.s.PGSQL.{os.environ['PGPORT']}")
        else:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            self.socket.connect((way, int(os.environ["PGPORT"])))
        self.socket.settimeout(DEADLINE)
        self.file = self.socket.makefile("rb")
        names = {"user": os.environ["PGUSER"], "database": os.environ["PGDATABASE"], "application_name": name}
        body = struct.pack("!i", 196608) + "".join(f"{k}\0{v}\0" for k, v in names.items()).encode() + b"\0"
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        while True:
            tag, body = self.message()
            if tag == b"K":
                self.pid = struct.unpack("!i", body[:4])[0]
            if tag == b"Z":
                break
            assert tag and tag in b"RSKN", (tag, body)

    def message(self):
        """The next one; without a type at the end of file, and of type `cut` where it breaks off."""
        head = self.file.read(5)
        if not head:
            return None, b""
        length = struct.unpack("!i", head[1:])[0] - 4 if len(head) == 5 else 1
        body = self.file.read(length) if len(head) == 5 else b""
        return (head[:1], body) if len(body) == length else ("cut", b"")

    def send(self, tag, body=b""):
        self.socket.sendall(tag + struct.pack("!i", len(body) + 4) + body)

    def ask(self, sql):
        self.send(b"Q", sql.encode() + b"\0")

    def rows(self, sql):
        """The first column of each row."""
        self.ask(sql)
        rows = []
        while (message := self.message())[0] != b"Z":
            assert message[0] not in (None, "cut", b"E"), message
            if message[0] == b"D":
                rows.append(message[1][6:].decode())
        return rows

    def answer(self):
        """How many rows, and what comes behind them to the end of the connection."""
        rows, rest = 0, ""
        while True:
            tag, body = self.message()
            if tag == b"D":
                rows += 1
            elif tag is None or tag == "cut":
                return rows, rest + (" cut" if tag else "")
            elif tag == b"E":
                fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
                rest += f" {fields[b'C'].decode()}"
            elif tag != b"T":
                rest += tag.decode()


def until(what, is_so):
    limit = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < limit, f"it did not come: {what}"


def settled(watch, pid):
    """Whether the server has sent everything, or waits because the proxy reads no more of it."""
    done = "query LIKE 'SELECT repeat%' AND (state = 'idle' OR wait_event = 'ClientWrite')"
    sql = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND {done}"
    until("the server has done what it can", lambda: watch.rows(sql))


def half_close(session, _):
    session.socket.shutdown(socket.SHUT_WR)


def terminate(session, _):
    session.send(b"X")


def terminate_behind_copy_data(session, _):
    session.socket.sendall(b"d\0\0\0\x09stray" + b"X\0\0\0\4")


def ended_by_the_server(session, watch):
    """Where the server has said everything; else it would say no more, and the client says Terminate."""
    here = f"FROM pg_stat_activity WHERE pid = {session.pid}"

    def ended():
        if watch.rows(f"SELECT pg_terminate_backend(pid) {here} AND state = 'idle'"):
            return True
        if watch.rows(f"SELECT 1 {here} AND wait_event = 'ClientWrite'"):
            session.send(b"X")
            return True
        return False

    until("the server has done what it can", ended)


def check(way, watch, rows, leave):
    session = Session(way, "early")
    session.ask(f"SELECT repeat('x', 1000) FROM generate_series(1, {rows})")
    settled(watch, session.pid)
    leave(session, watch)
    # The proxy hears of it before the client reads anything: what follows goes the same way.
    try:
        got, rest = session.answer()
    except TimeoutError:
        got, rest = 0, " nothing more"
    whole = got == rows and rest in ("CZ", "CZ 57P01")
    if not whole:
        print(f"{way} {leave.__name__} {rows}: {got} rows, then {rest!r}", flush=True)
    return whole, session.pid


def main():
    whole, pids = 0, set()
    for way in sys.argv[1:]:
        watch = Session(way, "watch")
        # Around what fits into the sockets' buffers and the proxy's together, whatever that is on this machine.
        sizes = range(100, 900, 100) if way.startswith("/") else range(2400, 4700, 140)
        for rows in sizes:
            for leave in (half_close, terminate, terminate_behind_copy_data, ended_by_the_server):
                is_whole, pid = check(way, watch, rows, leave)
                whole += is_whole
                pids.add(pid)
        watch.send(b"X")
    print(f"{whole} whole, {len(pids)} processes")


main()
