"""Signs in with each client of Python and a token of azure-identity. The server comes from PGHOST, PGUSER, …

Usage: clients.py HOST           prints a line of JSON for each client: its role, or the error
       clients.py HOST --lives   keeps a pool of each client; for each line of the input opens one more connection in it;
                                 the line is how many seconds this program's clock is ahead of the machine's
"""

import asyncio
import contextlib
import json
import os
import sys
import time

import asyncpg
import azure.identity
import azure.identity.aio
import django
import psycopg
import psycopg_pool
import sqlalchemy
from azure_postgresql_auth.psycopg3 import EntraConnection
from azure_postgresql_auth.sqlalchemy import create_asyncpg_engine
from credentials import SCOPE, credential
from django.conf import settings

QUERY = "SELECT current_user"


class Psycopg:
    """psycopg's own pool: a subclass of its connection gets the token."""

    def __init__(self, host):
        signing = credential(host, azure.identity)

        class Connection(psycopg.Connection):
            @classmethod
            def connect(cls, conninfo="", **options):
                return super().connect(conninfo, **{**options, "password": signing.get_token(SCOPE).token})

        self.keep(Connection, {})

    def keep(self, connection, options):
        # The pool would keep the cause of a failure to itself.
        connection.connect(**options).close()
        self.pool = psycopg_pool.ConnectionPool(
            "", connection_class=connection, kwargs=options, min_size=0, max_size=9, open=True
        )
        self.taken = contextlib.ExitStack()

    def sign_in(self):
        return self.taken.enter_context(self.pool.connection(timeout=20)).execute(QUERY).fetchone()[0]

    def close(self):
        self.taken.close()
        self.pool.close()


class Microsofts(Psycopg):
    """The same with the connection of azure-postgresql-auth, which also finds the role."""

    def __init__(self, host):
        self.keep(EntraConnection, {"credential": credential(host, azure.identity)})


class SqlAlchemy:
    def __init__(self, host):
        signing = credential(host, azure.identity)
        self.engine = sqlalchemy.create_engine("postgresql+psycopg://", pool_size=9)

        @sqlalchemy.event.listens_for(self.engine, "do_connect")
        def with_token(dialect, record, arguments, options):
            options["password"] = signing.get_token(SCOPE).token

        self.taken = contextlib.ExitStack()

    def sign_in(self):
        return self.taken.enter_context(self.engine.connect()).execute(sqlalchemy.text(QUERY)).scalar()

    def close(self):
        self.taken.close()
        self.engine.dispose()


class Django:
    """Django has a connection for each thread; it is closed, and the next query opens another."""

    def __init__(self, host):
        options = {"credential": credential(host, azure.identity)}
        database = {"ENGINE": "django_entra", "NAME": os.environ["PGDATABASE"], "OPTIONS": options}
        settings.configure(DATABASES={"default": database})
        django.setup()

    def sign_in(self):
        from django.db import connection

        connection.close()
        with connection.cursor() as cursor:
            return cursor.execute(QUERY).fetchone()[0]

    def close(self):
        from django.db import connection

        connection.close()


class Asyncpg:
    def __init__(self, host):
        self.host = host
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.open())

    async def open(self):
        self.signing = credential(self.host, azure.identity.aio)
        self.pool = await asyncpg.create_pool(password=self.token, min_size=0, max_size=9)

    async def token(self):
        return (await self.signing.get_token(SCOPE)).token

    async def connect(self):
        return await (await self.pool.acquire()).fetchval(QUERY)

    async def end(self):
        self.pool.terminate()
        await self.signing.close()

    def sign_in(self):
        return self.loop.run_until_complete(self.connect())

    def close(self):
        self.loop.run_until_complete(self.end())
        self.loop.close()


class MicrosoftsAsyncpg(Asyncpg):
    """The engine of azure-postgresql-auth for asyncpg."""

    async def open(self):
        self.signing = credential(self.host, azure.identity.aio)
        url = "postgresql+asyncpg://{PGHOST}:{PGPORT}/{PGDATABASE}".format(**os.environ)
        self.engine = create_asyncpg_engine(url, self.signing, pool_size=9)
        self.taken = []

    async def connect(self):
        self.taken.append(await self.engine.connect())
        return (await self.taken[-1].execute(sqlalchemy.text(QUERY))).scalar()

    async def end(self):
        for connection in self.taken:
            await connection.close()
        await self.engine.dispose()
        await self.signing.close()


CLIENTS = {
    "psycopg": Psycopg,
    "asyncpg": Asyncpg,
    "SQLAlchemy": SqlAlchemy,
    "Django": Django,
    "azure-postgresql-auth, psycopg": Microsofts,
    "azure-postgresql-auth, asyncpg": MicrosoftsAsyncpg,
}


def say(name, doing):
    try:
        said = {"role": doing()}
    except Exception as error:
        causes = []
        while error is not None:
            causes.append(f"{type(error).__name__}: {error}")
            error = error.__cause__ or error.__context__
        said = {"error": " <- ".join(causes)}
    print(json.dumps({"client": name, **said}), flush=True)


def once(host):
    for name, client in CLIENTS.items():

        def doing():
            with contextlib.closing(client(host)) as opened:
                return opened.sign_in()

        say(name, doing)


def lives(host):
    opened = {}

    def sign_in(name):
        if name not in opened:
            opened[name] = CLIENTS[name](host)
        return opened[name].sign_in()

    machines = time.time
    for line in sys.stdin:
        ahead = int(line)
        time.time = lambda: machines() + ahead
        for name in CLIENTS:
            say(name, lambda: sign_in(name))
        print("{}", flush=True)
    for client in opened.values():
        client.close()


os.environ.setdefault("PGPORT", "5432")
lives(sys.argv[1]) if "--lives" in sys.argv else once(sys.argv[1])
