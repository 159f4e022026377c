"""Serves an OCI layout as a registry on loopback, lets Helm pull the chart out of it, and ends.

Usage: install-test-registry.py LAYOUT TAG HELM FOLDER
"""

import http.server
import json
import subprocess
import sys
import tarfile
import threading

layout, tag, helm, folder = sys.argv[1:]
with tarfile.open(layout) as archive:
    files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
(manifest,) = json.loads(files["index.json"])["manifests"]
assert manifest["annotations"]["org.opencontainers.image.ref.name"] == tag


class Registry(http.server.BaseHTTPRequestHandler):
    """Manifests and blobs by digest, and the manifest by its tag."""

    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        if "/manifests/" in self.path:
            digest, kind = manifest["digest"], manifest["mediaType"]
            found = name in (tag, digest)
        else:
            digest, kind, found = name, "application/octet-stream", True
        body = files.get("blobs/" + digest.replace(":", "/")) if found else None
        if self.path == "/v2/":
            body = b"{}"
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Docker-Content-Digest", digest)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
threading.Thread(target=server.serve_forever, daemon=True).start()
source = f"oci://127.0.0.1:{server.server_address[1]}/charts/pgentra-proxy"
done = subprocess.run([helm, "pull", source, "--plain-http", "--version", tag, "--destination", folder], timeout=60)
sys.exit(done.returncode)
