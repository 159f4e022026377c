"""Many PostgreSQL clients at once, as the start-up of the protocol goes: prints how each was answered, as JSON.

Usage: burst.py HOST PORT USER DATABASE CLIENTS [PASSWORD_FILE]. As many at a time as this process may have files; a client that has a
session keeps it until all have been answered.
"""

import asyncio
import collections
import json
import pathlib
import resource
import struct
import sys

host, port, user, database, clients, *file = sys.argv[1:]
password = pathlib.Path(file[0]).read_bytes() + b"\0" if file else b""
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

parameters = b"\0".join(word.encode() for word in ("user", user, "database", database)) + b"\0\0"
startup = struct.pack("!ii", len(parameters) + 8, 3 << 16) + parameters


async def message(reader):
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    return kind, await reader.readexactly(length - 4)


async def client(places, kept):
    # If the queue of new connections stays full, the system drops some after a minute, before the
    # program accepts them (tcp(7), tcp_synack_retries). The client then connects again; the number of
    # accepted connections shows that the program dropped none.
    while True:
        try:
            return await attempt(places, kept)
        except ConnectionResetError:
            continue


async def attempt(places, kept):
    async with places:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(startup)
        while True:
            kind, body = await message(reader)
            if kind == b"R" and body == struct.pack("!i", 3):
                writer.write(b"p" + struct.pack("!i", len(password) + 4) + password)
            if kind == b"Z":
                kept.append(writer)
                return "session"
            if kind == b"E":
                fields = dict((field[:1], field[1:]) for field in body.split(b"\0"))
                assert await reader.read() == b"", "more after an error"
                writer.close()
                return fields[b"C"].decode()


async def burst():
    places, kept = asyncio.Semaphore(most - 500), []
    answers = await asyncio.gather(
        *(client(places, kept) for _ in range(int(clients))), return_exceptions=True
    )
    count = collections.Counter(repr(it) if isinstance(it, Exception) else it for it in answers)
    for writer in kept:
        writer.write(b"X\0\0\0\4")
        writer.close()
    return count


print(json.dumps(asyncio.run(burst())))
