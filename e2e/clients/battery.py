"""Does what applications do, with a real driver, and prints what came of it: the same must be printed whatever is between the
driver and the server.

Usage: battery.py DRIVER    the connection and the password, if any, come from PGHOST, PGPORT, PGUSER, PGPASSWORD, …
"""

import asyncio
import hashlib
import io
import os
import sys
import threading

BIG = 20_000_000
ROWS = 50_000


def say(what, value):
    print(f"{what}: {value}")


def with_psycopg():
    import psycopg
    from psycopg.types.json import Jsonb

    connection = psycopg.connect("", autocommit=True)
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    say("who", connection.execute("SELECT current_user, current_database()").fetchone())
    say("encoding", connection.info.encoding)
    say("settings", [connection.info.parameter_status(name) for name in ("server_version", "integer_datetimes", "TimeZone")])
    row = connection.execute(
        "SELECT %s::int, %s::text, %s::bytea, %s::jsonb, %s::numeric, %s::int[], NULL",
        (1, "ü\U0001f418", b"\0\xff", Jsonb({"a": [1, 2]}), "1.50", [1, 2]),
    ).fetchone()
    say("types", row)
    for number in range(10):
        prepared = connection.execute("SELECT %s::int + 1", (number,), prepare=True).fetchone()[0]
        assert prepared == number + 1
    big = connection.execute("SELECT repeat('x', %s)", (BIG,)).fetchone()[0]
    say("a big value comes", (len(big), hashlib.sha256(big.encode()).hexdigest()))
    say("a big value goes", connection.execute("SELECT md5(%s::text)", (big,)).fetchone()[0])
    for bad in ("SELECT 1/0", "SELECT nothing", "syntax error"):
        try:
            connection.execute(bad)
        except psycopg.Error as error:
            say("error", (error.sqlstate, error.diag.message_primary, error.diag.severity))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'a notice'; END $$")
    say("notices", notices)
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE copied (id int, line text)")
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            for number in range(ROWS):
                copy.write_row((number, f"line {number}"))
        with connection.cursor(name="held") as cursor:
            cursor.execute("SELECT id FROM copied ORDER BY id DESC")
            say("cursor", [row[0] for row in cursor.fetchmany(3)])
    out = hashlib.sha256()
    with connection.cursor().copy("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT") as copy:
        for block in copy:
            out.update(block)
    say("copy", out.hexdigest())
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int * 2", (number,)) for number in range(500)]
    say("pipeline", sum(cursor.fetchone()[0] for cursor in cursors))
    connection.execute("LISTEN news")
    with psycopg.connect("", autocommit=True) as other:
        other.execute("SELECT pg_notify('news', 'hello')")
    say("notification", [notify.payload for notify in connection.notifies(stop_after=1, timeout=30)])
    sleeping = threading.Thread(target=cancelled, args=(connection,))
    sleeping.start()
    # Asked again until it hits the statement: it may come before that has begun.
    while sleeping.is_alive():
        connection.cancel_safe(timeout=30)
        sleeping.join(0.05)
    say("afterwards", connection.execute("SELECT 1").fetchone())
    connection.execute("SET statement_timeout = 10")
    try:
        connection.execute("SELECT pg_sleep(100)")
    except psycopg.Error as error:
        say("timeout", error.sqlstate)
    connection.close()


def cancelled(connection):
    import psycopg

    try:
        connection.execute("SELECT pg_sleep(100)")
    except psycopg.errors.QueryCanceled as error:
        say("cancelled", error.sqlstate)


async def with_asyncpg():
    import asyncpg

    connection = await asyncpg.connect()
    say("who", tuple(await connection.fetchrow("SELECT current_user::text, current_database()::text")))
    say("version", connection.get_server_version())
    row = await connection.fetchrow(
        "SELECT $1::int, $2::text, $3::bytea, $4::numeric::text, $5::int[]", 1, "ü\U0001f418", b"\0\xff", "1.50", [1, 2]
    )
    say("types", tuple(row))
    big = await connection.fetchval("SELECT repeat('x', $1::int)", BIG)
    say("a big value comes", (len(big), hashlib.sha256(big.encode()).hexdigest()))
    say("a big value goes", await connection.fetchval("SELECT md5($1::text)", big))
    try:
        await connection.fetch("SELECT 1/0")
    except asyncpg.PostgresError as error:
        say("error", (error.sqlstate, str(error)))
    await connection.execute("CREATE TEMP TABLE copied (id int, line text)")
    records = [(number, f"line {number}") for number in range(ROWS)]
    say("copy in", await connection.copy_records_to_table("copied", records=records))
    out = io.BytesIO()
    await connection.copy_from_query("SELECT * FROM copied ORDER BY id", output=out, format="binary")
    say("copy out", hashlib.sha256(out.getvalue()).hexdigest())
    statement = await connection.prepare("SELECT $1::int + 1")
    say("prepared", [await statement.fetchval(number) for number in range(5)])
    async with connection.transaction():
        rows = [row["id"] async for row in connection.cursor("SELECT id FROM copied ORDER BY id LIMIT 1000", prefetch=50)]
        say("cursor", sum(rows))
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("news", lambda *notification: heard.set_result(notification[2:]))
    other = await asyncpg.connect()
    await other.execute("SELECT pg_notify('news', 'hello')")
    await other.close()
    say("notification", await asyncio.wait_for(heard, 30))
    try:
        # A driver's own time limit sends a cancel request.
        await connection.fetch("SELECT pg_sleep(100)", timeout=0.2)
    except asyncio.TimeoutError:
        say("afterwards", await connection.fetchval("SELECT 1"))
    await connection.close()


def with_pg8000():
    import pg8000.dbapi

    connection = pg8000.dbapi.connect(
        host=os.environ["PGHOST"],
        port=int(os.environ["PGPORT"]),
        user=os.environ["PGUSER"],
        database=os.environ["PGDATABASE"],
        password=os.environ.get("PGPASSWORD"),
        ssl_context=ssl_context(),
    )
    cursor = connection.cursor()
    cursor.execute("SELECT current_user, current_database()")
    say("who", tuple(cursor.fetchone()))
    cursor.execute("SELECT %s::int, %s::text, %s::bytea", (1, "ü\U0001f418", b"\0\xff"))
    say("types", tuple(cursor.fetchone()))
    cursor.execute("CREATE TEMP TABLE copied (id int, line text)")
    lines = "".join(f"{number}\tline {number}\n" for number in range(ROWS))
    cursor.execute("COPY copied FROM STDIN", stream=io.BytesIO(lines.encode()))
    out = io.BytesIO()
    cursor.execute("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT", stream=out)
    say("copy", out.getvalue().decode() == lines)
    try:
        cursor.execute("SELECT 1/0")
    except pg8000.dbapi.DatabaseError as error:
        say("error", (error.args[0]["C"], error.args[0]["M"]))
    connection.close()


def ssl_context():
    import ssl

    if os.environ.get("PGSSLMODE") != "verify-full":
        return None
    return ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])


{
    "psycopg": with_psycopg,
    "asyncpg": lambda: asyncio.run(with_asyncpg()),
    "pg8000": with_pg8000,
}[sys.argv[1]]()
