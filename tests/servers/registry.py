#!/usr/bin/env python3
"""A registry of npm and an index of Python packages on loopback, of what is installed here.

    registry.py NODE_MODULES WHEELS [MORE [AUTHORIZATION...]]

NODE_MODULES is a directory of installed npm packages, WHEELS one of wheels, MORE one of further npm
packages, looked at anew with each request, and of bare git repositories (NAME.git). Where there is an AUTHORIZATION, a request without one of them is
refused. Prints the port, and every request to stderr.
"""

import base64
import hashlib
import html
import io
import json
import sys
import tarfile
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODULES, WHEELS = Path(sys.argv[1]), Path(sys.argv[2])
MORE = Path(sys.argv[3]) if len(sys.argv) > 3 else None
LOGINS = sys.argv[4:]


def packages(top):
    """The packages in a node_modules directory, and in those of its packages."""
    for entry in sorted(top.iterdir()):
        inner = sorted(entry.iterdir()) if entry.name.startswith("@") else [entry]
        for package in inner:
            manifest = package / "package.json"
            if not manifest.is_file() or package.name.startswith("."):
                continue
            yield package, json.loads(manifest.read_text())
            if (package / "node_modules").is_dir():
                yield from packages(package / "node_modules")


def tarball(package):
    """The package as npm's registry has it."""

    def ours(info):
        inside = info.name.removeprefix("package").strip("/")
        return None if inside.split("/")[0] == "node_modules" else info

    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w:gz", compresslevel=1) as tar:
        tar.add(package, arcname="package", filter=ours)
    return text.getvalue()


def npm():
    """Names to versions to (directory, manifest)."""
    found = {}
    for top in [MODULES, *([MORE] if MORE and MORE.is_dir() else [])]:
        for package, manifest in packages(top):
            versions = found.setdefault(manifest["name"], {})
            versions.setdefault(manifest["version"], (package, manifest))
    return found


TARBALLS = {}


def tarball_of(package):
    key = str(package)
    if key not in TARBALLS:
        TARBALLS[key] = tarball(package)
    return TARBALLS[key]


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if LOGINS and self.headers.get("Authorization") not in LOGINS:
            return self.say(b'{"error": "who are you?"}', 401, "application/json")
        path = urllib.parse.unquote(self.path.split("?")[0]).strip("/")
        if path.startswith("simple/"):
            return self.index(path.removeprefix("simple/").strip("/"))
        if path.startswith("wheels/"):
            wheel = WHEELS / Path(path).name
            return self.say(wheel.read_bytes()) if wheel.is_file() else self.say(b"", 404)
        if MORE and ".git/" in path:
            file = MORE / path
            return self.say(file.read_bytes()) if file.is_file() else self.say(b"", 404)
        if "/-/" in path:
            name, version = path.removesuffix(".tgz").split("/-/")
            found = npm().get(name, {}).get(version)
            return self.say(tarball_of(found[0])) if found else self.say(b"{}", 404)
        return self.packument(path)

    do_HEAD = do_GET

    def packument(self, name):
        versions = npm().get(name)
        if not versions:
            return self.say(b'{"error": "not found"}', 404, "application/json")
        host = self.headers["Host"]
        answer = {"name": name, "versions": {}}
        for version, (package, manifest) in versions.items():
            digest = base64.b64encode(hashlib.sha512(tarball_of(package)).digest()).decode()
            dist = {
                "tarball": f"http://{host}/{name}/-/{version}.tgz",
                "integrity": f"sha512-{digest}",
            }
            # npm leaves out what it would not run; the registry says so.
            scripts = any(s in manifest.get("scripts", {}) for s in ("install", "postinstall"))
            answer["versions"][version] = {**manifest, "dist": dist, "hasInstallScript": scripts}
        newest = max(versions, key=lambda v: [int(n) for n in v.split("-")[0].split(".")])
        answer["dist-tags"] = {"latest": newest}
        return self.say(json.dumps(answer).encode(), 200, "application/json")

    def index(self, name):
        def plain(text):
            return text.lower().replace("_", "-").replace(".", "-")

        links = []
        for wheel in sorted(WHEELS.glob("*.whl")):
            if plain(wheel.name.split("-")[0]) == plain(name):
                digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                file = html.escape(wheel.name)
                links.append(f'<a href="/wheels/{file}#sha256={digest}">{file}</a>')
        text = "<!DOCTYPE html>\n" + "\n".join(links)
        return self.say(text.encode(), 200 if links else 404, "text/html")

    def say(self, body, status=200, kind="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_address[1], flush=True)
server.serve_forever()
