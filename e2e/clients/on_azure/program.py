"""The program of the article, as it is deployed on Azure: nothing in it knows of a local cloud.

Usage: program.py ROLE    prints the role that it is.
"""

import sys

import psycopg
from azure.identity import DefaultAzureCredential

token = DefaultAzureCredential().get_token("https://ossrdbms-aad.database.windows.net/.default").token
with psycopg.connect(
    host="mydemoserver.postgres.database.azure.com",
    dbname="postgres",
    user=sys.argv[1],
    password=token,
    sslmode="verify-full",
    sslrootcert="/etc/ssl/certs/ca-certificates.crt",
) as connection:
    print(connection.execute("SELECT current_user").fetchone()[0])
