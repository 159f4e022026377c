#!/usr/bin/env python3
"""Records what the Azure SDKs send, for crates/emulator/tests/requests.json.

Usage: capture.py OUTPUT WORK [SDK...]     SDK: go, java, node, python; default: all

A server on loopback stands in for every endpoint of Azure: it notes each request and answers with a token that no
service would take. Each SDK runs once for each case, one after the other. WORK holds the packages and is kept, so that
a second run needs no registry. Needs openssl, and of the SDKs that are named: go, java with mvn and keytool, node with
npm, python3 with venv. Azure Arc takes root and an empty /var/opt, whose azcmagent it makes where CAPTURE_ARC is set:
`unshare --mount sh -c 'mount -t tmpfs none /var/opt && CAPTURE_ARC=1 python3 capture.py ...'`. Else that case is left out.

What differs between two runs is replaced by a placeholder in braces; crates/emulator/tests/it/requests.rs explains them.
The requests of .NET in OUTPUT are kept as they are.
"""

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
TENANT = "7e0a0a01-1111-4111-8111-aaaaaaaaaaa1"
CLIENT = "7e0a0a02-2222-4222-8222-aaaaaaaaaaa2"
OBJECT = "7e0a0a03-3333-4333-8333-aaaaaaaaaaa3"
CONNECTION = "7e0a0a04-4444-4444-8444-aaaaaaaaaaa4"
RESOURCE = (
    "/subscriptions/7e0a0a05-5555-4555-8555-aaaaaaaaaaa5/resourceGroups/myResourceGroup"
    "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/myIdentity"
)
SECRETS = {
    "app_service": "appserviceheader0123456789",
    "service_fabric": "servicefabricheader01234567",
    "machine_learning": "machinelearningsecret012345",
    "pipelines": "pipelinesaccesstoken0123456",
    "client_secret": "clientsecret01234567890123",
    "arc_key": "arckey0123456789012345678901",
}
ARC = Path("/var/opt/azcmagent/tokens")
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
# Of the connection and the moment, not of the request.
VOLATILE = {"host", "content-length", "connection", "date", "traceparent", "tracestate", "x-client-cpu", "x-client-os"}


def encoded(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def unsigned(claims):
    head = {"alg": "RS256", "typ": "JWT", "kid": "capture"}
    return ".".join(encoded(json.dumps(part).encode()) for part in (head, claims)) + "." + encoded(b"signature")


class World:
    """Files, ports and what was heard."""

    def __init__(self, work):
        self.work = work
        self.heard = []
        self.lock = threading.Lock()
        self.files = {
            name: work / file
            for name, file in {
                "ca": "ca.pem", "server": "server.pem", "client": "client.pem", "federated": "federated",
            }.items()
        }
        self.certificates()
        now = int(time.time())
        claims = {"iss": "https://issuer", "sub": "subject", "aud": "api://AzureADTokenExchange", "exp": now + 3600}
        self.federated = unsigned(claims)
        self.files["federated"].write_text(self.federated)
        self.token = unsigned({"aud": "capture", "exp": now + 86400, "iat": now, "nbf": now, "tid": TENANT})
        self.http = self.serve()
        self.https = self.serve(self.files["server"])
        self.arc = self.serve()

    def certificates(self):
        def openssl(*words):
            subprocess.run(["openssl", *words], check=True, cwd=self.work, capture_output=True)

        ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "3650"]
        openssl("req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=capture")
        openssl(
            "req", "-x509", *ec, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )
        join = lambda *names: b"".join((self.work / name).read_bytes() for name in names)
        self.files["server"].write_bytes(join("server.crt", "server.key"))
        self.server_sha1 = hashlib.sha1(self.der("server.crt")).hexdigest().upper()
        while True:
            openssl(
                "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "3650", "-keyout", "client.key",
                "-out", "client.crt", "-subj", "/CN=capture client",
            )
            self.files["client"].write_bytes(join("client.crt", "client.key"))
            der = self.der("client.crt")
            digests = [hashlib.new(name, der).digest() for name in ("sha1", "sha256")]
            # The two alphabets of base64 must show which of them an SDK writes.
            if all(re.search("[+/]", base64.b64encode(digest).decode()) for digest in digests):
                break
        self.thumbprints = {}
        for name, digest in zip(("sha1", "sha256"), digests):
            for alphabet, text in (("base64", base64.b64encode(digest)), ("base64url", base64.urlsafe_b64encode(digest))):
                self.thumbprints[text.decode()] = f"{{{name}:{alphabet}:padded}}"
                self.thumbprints[text.decode().rstrip("=")] = f"{{{name}:{alphabet}}}"
            self.thumbprints[digest.hex()] = f"{{{name}:hex}}"
            self.thumbprints[digest.hex().upper()] = f"{{{name}:HEX}}"
        self.client_der = base64.b64encode(der).decode()

    def der(self, name):
        return ssl.PEM_cert_to_DER_cert((self.work / name).read_text())

    def serve(self, certificate=None):
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                world.answer(self)

            do_GET = do_POST = do_HEAD = do_PUT = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def url(self, door):
        return {
            "metadata": f"http://127.0.0.1:{self.http}",
            "arc": f"http://127.0.0.1:{self.arc}",
        }.get(door, f"https://localhost:{self.https}")

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("content-length") or 0)).decode()
        port = request.server.server_address[1]
        with self.lock:
            # `path` has one slash only where a client sent several at its start.
            target = request.requestline.split(" ")[1]
            self.heard.append((port, request.command, target, list(request.headers.items()), body))
        path = re.sub("/+", "/", target.partition("?")[0])
        status, headers, text = self.reply(port, path, request.headers)
        data = (text if isinstance(text, str) else json.dumps(text)).encode()
        request.send_response(status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    def reply(self, port, path, headers):
        now = int(time.time())
        base = self.url("authority")
        managed = {
            "access_token": self.token, "client_id": CLIENT, "expires_in": "86400", "expires_on": str(now + 86400),
            "ext_expires_in": "86400", "not_before": str(now), "resource": "capture", "token_type": "Bearer",
        }
        if path.endswith("/.well-known/openid-configuration"):
            tenant = f"{base}/{TENANT}"
            return 200, {}, {
                "issuer": f"{tenant}/v2.0", "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                "token_endpoint": f"{tenant}/oauth2/v2.0/token", "jwks_uri": f"{tenant}/discovery/v2.0/keys",
            }
        if path.endswith("/oauth2/v2.0/token"):
            return 200, {}, {
                "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": self.token,
            }
        if path == "/pipelines/oidctoken":
            return 200, {}, {"oidcToken": self.federated}
        if port == self.arc and "authorization" not in headers:
            (ARC / "capture.key").write_text(SECRETS["arc_key"])
            return 401, {"WWW-Authenticate": f"Basic realm={ARC}/capture.key"}, ""
        if path == "/metadata/identity/oauth2/token" and port == self.http and headers.get("metadata") != "true":
            error = {"error": "bad_request_102", "error_description": "Required metadata header not specified"}
            return 400, {"Server": "IMDS/150.870.65.1854"}, error
        return 200, {}, managed


def cases(world):
    metadata, authority = world.url("metadata"), world.url("authority")
    imds = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata}
    app_service = {"IDENTITY_ENDPOINT": f"{metadata}/MSI/token", "IDENTITY_HEADER": SECRETS["app_service"]}
    learning = {"MSI_ENDPOINT": f"{metadata}/azureml/token", "MSI_SECRET": SECRETS["machine_learning"]}
    fabric = {
        "IDENTITY_ENDPOINT": f"{authority}/metadata/identity/oauth2/token",
        "IDENTITY_HEADER": SECRETS["service_fabric"], "IDENTITY_SERVER_THUMBPRINT": world.server_sha1,
    }
    application = {"AZURE_AUTHORITY_HOST": f"{authority}/", "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT}
    federated = {**application, "AZURE_FEDERATED_TOKEN_FILE": str(world.files["federated"])}
    pipelines = {
        **application, "SYSTEM_OIDCREQUESTURI": f"{authority}/pipelines/oidctoken",
        "SYSTEM_ACCESSTOKEN": SECRETS["pipelines"],
    }
    yield "imds", "default", imds
    yield "imds", "managed", imds
    yield "imds", "managed-client-id", imds
    yield "imds", "managed-object-id", imds
    yield "imds", "managed-resource-id", imds
    yield "app-service", "managed", app_service
    yield "app-service", "managed-client-id", app_service
    yield "app-service", "managed-resource-id", app_service
    yield "service-fabric", "managed", fabric
    yield "azure-ml", "managed-client-id", learning
    yield "cloud-shell", "managed", {"MSI_ENDPOINT": f"{metadata}/oauth2/token"}
    if ARC.is_dir():
        url = world.url("arc")
        yield "azure-arc", "managed", {"IDENTITY_ENDPOINT": f"{url}/metadata/identity/oauth2/token", "IMDS_ENDPOINT": url}
    yield "client-secret", "secret", {**application, "AZURE_CLIENT_SECRET": SECRETS["client_secret"]}
    yield "client-certificate", "certificate", {**application, "AZURE_CLIENT_CERTIFICATE_PATH": str(world.files["client"])}
    yield "aks", "workload", federated
    yield "azure-pipelines", "pipelines", {**pipelines, "CAPTURE_CONNECTION": CONNECTION}


def described(world, heard, client):
    """One request as the table has it."""
    port, method, target, headers, body = heard
    doors = {world.http: "metadata", world.arc: "arc", world.https: "authority"}
    names = {
        TENANT: "{tenant}", CLIENT: client, OBJECT: "{object_id}", CONNECTION: "{service_connection}",
        world.federated: "{federated}", **{secret: f"{{{name}}}" for name, secret in SECRETS.items()},
    }
    for quoted in (RESOURCE, urllib.parse.quote(RESOURCE, safe=""), urllib.parse.quote(RESOURCE)):
        names[quoted] = "{resource_id}" if quoted == RESOURCE else "{resource_id:encoded}"

    def plain(text):
        for value, name in names.items():
            text = text.replace(value, name)
        for door in ("metadata", "arc", "authority"):
            text = text.replace(world.url(door), f"{{{door}}}")
        text = text.replace("/pipelines/oidctoken", "{pipelines_path}")
        text = text.replace(platform.platform(), "Linux").replace(platform.release(), "6")
        return UUID.sub("{uuid}", text)

    assertion = None

    def signed(match):
        nonlocal assertion
        token = urllib.parse.unquote_plus(match.group(2))
        if token == world.federated:
            return match.group(1) + "{federated}"
        header, claims = (
            json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in token.split(".")[:2]
        )
        for name, value in header.items():
            if isinstance(value, str):
                header[name] = world.thumbprints.get(value, value)
        if "x5c" in header:
            header["x5c"] = "{x5c}"
        now = time.time()
        for name in ("iat", "nbf", "exp"):
            if name in claims:
                form = {str: "text", int: "number", float: "fraction"}[type(claims[name])]
                seconds = round((float(claims[name]) - now) / 60) * 60
                claims[name] = f"{{{form}:{seconds}}}"
        claims = {name: plain(value) if isinstance(value, str) else value for name, value in claims.items()}
        assertion = {"header": header, "claims": claims}
        return match.group(1) + "{assertion}"

    form = re.sub(r"(\bclient_assertion=)([^&]*)", signed, body)
    kept = {}
    for name, value in headers:
        if name.lower() not in VOLATILE:
            kept[name] = plain(value)
    door = doors[port]
    if door == "authority" and target.startswith("/metadata/"):
        door = "service_fabric"
    elif door == "authority" and target.startswith("/pipelines/"):
        door = "federation"
    entry = {"door": door, "method": method, "target": plain(target), "headers": kept}
    if body:
        entry["body"] = plain(form)
    if assertion:
        entry["assertion"] = assertion
    return entry


def prepared(sdk, work):
    """Installs the SDK; returns the command that runs a case, and the SDK's version."""
    folder = work / sdk
    shutil.copytree(HERE / sdk, folder, dirs_exist_ok=True)
    quiet = {"check": True, "cwd": folder, "stdout": sys.stderr}
    if sdk == "go":
        subprocess.run(["go", "build", "-o", "capture", "."], **quiet)
        listed = subprocess.run(
            ["go", "list", "-m", "github.com/Azure/azure-sdk-for-go/sdk/azidentity"],
            check=True, cwd=folder, capture_output=True, text=True,
        )
        return [str(folder / "capture")], "azidentity " + listed.stdout.split()[1].lstrip("v")
    if sdk == "java":
        if not (folder / "lib").is_dir():
            subprocess.run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], **quiet)
        jar = next((folder / "lib").glob("azure-identity-[0-9]*.jar"))
        trust = work / "trust.p12"
        trust.unlink(missing_ok=True)
        subprocess.run(
            ["keytool", "-importcert", "-noprompt", "-alias", "capture", "-file", str(work / "ca.pem"),
             "-keystore", str(trust), "-storetype", "PKCS12", "-storepass", "capture"],
            check=True, capture_output=True,
        )
        command = ["java", f"-Djavax.net.ssl.trustStore={trust}", "-Djavax.net.ssl.trustStorePassword=capture",
                   "-XX:TieredStopAtLevel=1", "-cp", "lib/*", "Capture.java"]
        return command, "azure-identity " + jar.stem.removeprefix("azure-identity-")
    if sdk == "node":
        if not (folder / "node_modules").is_dir():
            subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], **quiet)
        package = json.loads((folder / "node_modules/@azure/identity/package.json").read_text())
        return ["node", str(folder / "capture.mjs")], "@azure/identity " + package["version"]
    venv = folder / "venv"
    if not venv.is_dir():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], **quiet)
        subprocess.run([str(venv / "bin/pip"), "install", "--quiet", "-r", "requirements.txt"], **quiet)
    asked = [str(venv / "bin/python"), "-c", "import importlib.metadata as m; print(m.version('azure-identity'))"]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    return [str(venv / "bin/python"), str(folder / "capture.py")], "azure-identity " + version


def captured(world, sdk):
    command, version = prepared(sdk, world.work)
    for host, credential, variables in cases(world):
        world.heard.clear()
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment |= {
            "SSL_CERT_FILE": str(world.files["ca"]), "REQUESTS_CA_BUNDLE": str(world.files["ca"]),
            "NODE_EXTRA_CA_CERTS": str(world.files["ca"]), "CAPTURE_CLIENT_ID": CLIENT, "CAPTURE_OBJECT_ID": OBJECT,
            "CAPTURE_RESOURCE_ID": RESOURCE, "CAPTURE_METADATA": world.url("metadata"), **variables,
        }
        done = subprocess.run(
            [*command, credential], cwd=world.work / sdk, env=environment, capture_output=True, text=True, timeout=120
        )
        worked = done.returncode == 0
        print(f"{sdk} {host} {credential}: {len(world.heard)} requests, {'token' if worked else 'no token'}", file=sys.stderr)
        if not worked:
            print((done.stderr or done.stdout)[-600:], file=sys.stderr)
        client = "{application}" if credential in ("secret", "certificate") else "{client_id}"
        requests = [described(world, heard, client) for heard in world.heard]
        if worked:
            yield {"sdk": sdk, "version": version, "host": host, "credential": credential, "requests": requests}


def main(output, work, *sdks):
    output, work = Path(output), Path(work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    wanted = sdks or ("go", "java", "node", "python")
    old = json.loads(output.read_text()) if output.exists() else []
    if ARC.parent.parent.is_dir() and not ARC.parent.exists() and os.geteuid() == 0 and os.environ.get("CAPTURE_ARC"):
        ARC.mkdir(parents=True)
    world = World(work)
    table = [entry for entry in old if entry["sdk"] not in wanted]
    for sdk in wanted:
        table.extend(captured(world, sdk))
    output.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
