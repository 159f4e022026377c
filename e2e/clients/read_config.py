"""Reads a configuration as its program does: prints host, port, user and database of each server as JSON."""

import io
import json
import os
import re
import sys

import dotenv
import psycopg
import yaml


def pgadmin(text):
    for server in json.loads(text)["Servers"].values():
        yield server["Host"], server["Port"], server["Username"], server["MaintenanceDB"]


def dbeaver(text):
    for connection in json.loads(text)["connections"].values():
        values = connection["configuration"]
        yield values["host"], values["port"], values["user"], values["database"]


def grafana(text):
    for source in yaml.safe_load(text)["datasources"]:
        # Grafana takes $$ for a dollar sign.
        values = [source["url"], source["user"], source["jsonData"]["database"]]
        url, user, database = (value.replace("$$", "$") for value in values)
        host, port = url.rsplit(":", 1)
        yield host, port, user, database


def psql_service(text):
    # libpq reads the file.
    for service in re.findall(r"^\[(.*)\]$", text, re.MULTILINE):
        os.environ["PGSERVICE"] = service
        defaults = {it.keyword: it.val for it in psycopg.pq.Conninfo.get_defaults() if it.val}
        values = {name.decode(): value.decode() for name, value in defaults.items()}
        yield values["host"], values["port"], values["user"], values["dbname"]


def uri(text):
    values = psycopg.conninfo.conninfo_to_dict(text)
    return values["host"], values["port"], values["user"], values["dbname"]


def dotenv_file(text):
    values = dotenv.dotenv_values(stream=io.StringIO(text))
    for name in values:
        prefix, found, _ = name.partition("DATABASE_URL")
        if found:
            whole = uri(values[name])
            for word, expected in zip(("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"), whole):
                value = values.get(prefix + word, expected)
                assert value == expected, (word, value, expected)
            yield whole


READERS = {
    "pgadmin": pgadmin,
    "dbeaver": dbeaver,
    "grafana": grafana,
    "psql-service": psql_service,
    "dotenv": dotenv_file,
}
program, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    found = READERS[program](file.read())
print(json.dumps([[host, str(port), user, database] for host, port, user, database in found]))
