"""Signs in to PostgreSQL as the environment says, with a token of azure-identity as the password.

Usage: login.py DRIVER CREDENTIAL    for example: login.py psycopg DefaultAzureCredential
Prints the role that it is.
"""

import asyncio
import os
import sys

import asyncpg
import azure.identity
import psycopg

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


def token(kind):
    options = {}
    if kind == "ManagedIdentityCredential" and "AZURE_CLIENT_ID" in os.environ:
        options["client_id"] = os.environ["AZURE_CLIENT_ID"]
    if "AZURE_AUTHORITY_HOST" in os.environ:
        # else MSAL asks login.microsoftonline.com whether there is such an authority
        options["disable_instance_discovery"] = True
    return getattr(azure.identity, kind)(**options).get_token(SCOPE).token


def with_psycopg(password):
    with psycopg.connect(password=password) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.info.get_parameters()["sslmode"] == "verify-full"
        return connection.execute("SELECT current_user").fetchone()[0]


def with_asyncpg(password):
    async def run():
        connection = await asyncpg.connect(password=password)
        try:
            return await connection.fetchval("SELECT current_user")
        finally:
            await connection.close()

    return asyncio.run(run())


driver, credential = sys.argv[1:]
print({"psycopg": with_psycopg, "asyncpg": with_asyncpg}[driver](token(credential)))
