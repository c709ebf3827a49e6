"""Streamable HTTP (2025-11-25) for conformance.py: just enough that the suite can meet the fixture without a gateway.
Loopback only; prints its port when it listens."""

import json
import queue
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import conformance

LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Client:
    """A session, and the streams that are open for it: by the id of the request each belongs to."""

    def __init__(self):
        self.streams = {}
        self.session = conformance.Session(self.say)

    def say(self, message, of):
        stream = self.streams.get(of) or self.streams.get(None)
        if stream:
            stream.put(message)


class Handler(BaseHTTPRequestHandler):
    clients = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def is_foreign(self):
        origin = self.headers.get("Origin", "").split("//")[-1]
        hosts = [self.headers.get("Host", "localhost"), origin or "localhost"]
        return not all(host.rsplit(":", 1)[0] in LOCAL for host in hosts)

    def client(self):
        found = self.clients.get(self.headers.get("Mcp-Session-Id"))
        if not found:
            self.reply(404 if "Mcp-Session-Id" in self.headers else 400)
        return found

    def stream(self, client, of):
        """Sends what belongs to a request until its answer; for `None`, until the client is gone."""
        messages = client.streams.setdefault(of, queue.Queue())
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.send_header("Mcp-Session-Id", next(key for key, value in self.clients.items() if value is client))
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                message = messages.get()
                self.wfile.write(f"event: message\ndata: {json.dumps(message)}\n\n".encode())
                self.wfile.flush()
                if "method" not in message and message.get("id") == of:
                    break
        except OSError:
            pass
        finally:
            client.streams.pop(of, None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.is_foreign():
            return self.reply(403)
        message = json.loads(body)
        if message.get("method") == "initialize":
            client = Client()
            self.clients[str(uuid.uuid4())] = client
        else:
            client = self.client()
        if not client:
            return None
        if "method" in message and "id" in message:
            client.streams[message["id"]] = queue.Queue()
            client.session.hear(message)
            return self.stream(client, message["id"])
        client.session.hear(message)
        return self.reply(202)

    def do_GET(self):
        client = self.client()
        if client:
            self.stream(client, None)

    def do_DELETE(self):
        client = self.client()
        if client:
            del self.clients[self.headers["Mcp-Session-Id"]]
            self.reply(204)


def serve(port):
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()
