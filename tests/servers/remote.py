"""An MCP server over Streamable HTTP (or HTTP+SSE) that does wrong on command.

It speaks HTTP by hand, so that it can break it. What it does next is posted to /command as JSON;
what it saw is at /seen. Started with PORT in its environment; CERT and KEY make it speak TLS.
"""

import json
import os
import queue
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()
SESSIONS = {}  # id -> the identity that its requests brought
STREAMS = {}  # id -> queue of what goes to the session's own stream
ANSWERS = {}  # id of a question -> queue of its answer
SEEN = []
MODE = {}
BEGUN = {"count": 0}

TOOLS = [
    {
        "name": name,
        "description": name,
        "inputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
    }
    for name in ("echo", "slow", "whoami", "huge", "cut", "later", "fail", "pretty", "progress", "ask")
]


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], **more}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError):
            pass

    # --- what goes out

    def plain(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, message, **headers):
        body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": message}}
        self.plain(status, json.dumps(body).encode(), **headers)

    def begin_events(self, **headers):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def chunk(self, data):
        if isinstance(data, str):
            data = data.encode()
        step = 1 if MODE.get("bytewise") else max(1, len(data))
        for at in range(0, len(data), step):
            part = data[at : at + step]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()

    def end_events(self):
        self.wfile.write(b"0\r\n\r\n")

    def event(self, message, ident=None, name=None):
        lines = []
        if name:
            lines.append(f"event: {name}")
        if ident:
            lines.append(f"id: {ident}")
        data = message if isinstance(message, str) else json.dumps(message)
        lines += [f"data: {line}" for line in data.split("\n")]
        self.chunk("\r\n".join(lines) + "\r\n\r\n")

    def body(self):
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length)

    def see(self, message=None):
        with LOCK:
            SEEN.append(
                {
                    "verb": self.command,
                    "path": self.path,
                    "method": (message or {}).get("method"),
                    "id": (message or {}).get("id"),
                    "params": (message or {}).get("params"),
                    "session": self.headers.get("Mcp-Session-Id"),
                    "version": self.headers.get("MCP-Protocol-Version"),
                    "authorization": self.headers.get("Authorization"),
                    "custom": self.headers.get("X-Who"),
                    "accept": self.headers.get("Accept"),
                    "last_event": self.headers.get("Last-Event-ID"),
                    "port": self.client_address[1],
                }
            )

    # --- what comes in

    def do_GET(self):
        if self.path == "/seen":
            with LOCK:
                return self.plain(200, json.dumps(SEEN).encode())
        self.see()
        if self.path == "/sse":
            return self.old_stream()
        session = self.headers.get("Mcp-Session-Id")
        if self.headers.get("Last-Event-ID"):
            return self.resumed()
        if MODE.get("stream_status"):
            return self.plain(MODE["stream_status"])
        if MODE.get("stream") != "yes" or session not in SESSIONS:
            return self.plain(405)
        mine = queue.Queue()
        STREAMS[session] = mine
        self.begin_events()
        while MODE.get("flood"):
            note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
            self.chunk(f"data: {json.dumps(note)}\n\n" * 500)
        while True:
            self.event(mine.get())

    def resumed(self):
        self.begin_events()
        ident = int(self.headers["Last-Event-ID"].split("-")[0])
        self.event({"jsonrpc": "2.0", "id": ident, "result": text("after the cut")}, ident=f"{ident}-2")
        self.end_events()

    def old_stream(self):
        if MODE.get("old") == "elsewhere":
            self.begin_events()
            self.event("http://127.0.0.1:1/messages", name="endpoint")
            return time.sleep(30)
        with LOCK:
            BEGUN["count"] += 1
            session = f"old-{BEGUN['count']}"
        mine = queue.Queue()
        SESSIONS[session] = self.headers.get("Authorization") or ""
        STREAMS[session] = mine
        self.begin_events()
        self.event(f"/messages?session={session}", name="endpoint")
        while True:
            message = mine.get()
            if message is None:
                return self.end_events()
            self.event(message)

    def do_DELETE(self):
        self.see()
        known = SESSIONS.pop(self.headers.get("Mcp-Session-Id"), None)
        self.plain(200 if known is not None else 404)

    def do_POST(self):
        body = self.body()
        if self.path == "/command":
            with LOCK:
                MODE.clear()
                MODE.update(json.loads(body))
                if MODE.get("forget"):
                    SESSIONS.clear()
                for message in MODE.get("say", []):
                    for stream in STREAMS.values():
                        stream.put(message)
                if MODE.get("hang_up"):
                    for stream in STREAMS.values():
                        stream.put(None)
            return self.plain(200, b"{}")
        message = json.loads(body)
        self.see(message)
        if self.path.startswith("/messages?session="):
            session = self.path.split("=", 1)[1]
            if MODE.get("status"):
                return self.error(MODE["status"], "as told")
            self.plain(202, b"", "application/json" if MODE.get("old_json") else "text/plain")
            answer = self.answer(message, SESSIONS.get(session))
            if answer is not None:
                STREAMS[session].put(answer)
            return None
        return self.streamable(message)

    def streamable(self, message):
        if MODE.get("status"):
            return self.error(MODE["status"], MODE.get("message", "as told"), **MODE.get("headers", {}))
        needed = MODE.get("needs")
        if needed and self.headers.get("Authorization") not in needed:
            return self.error(401, f"no: {self.headers.get('Authorization')}")
        if MODE.get("silent"):
            return time.sleep(60)
        if MODE.get("close"):
            return self.connection.shutdown(socket.SHUT_RDWR)
        if MODE.get("html"):
            return self.plain(200, b"<html>not here</html>", "text/html")
        method, ident = message.get("method"), message.get("id")
        session = self.headers.get("Mcp-Session-Id")
        if method == "initialize":
            with LOCK:
                BEGUN["count"] += 1
                session = f"s{BEGUN['count']}"
                SESSIONS[session] = self.headers.get("Authorization") or ""
            body = json.dumps({"jsonrpc": "2.0", "id": ident, "result": self.result(message)})
            return self.plain(200, body.encode(), Mcp_Session_Id=session)
        if session not in SESSIONS:
            if MODE.get("lost_is_400"):
                return self.error(400, "Bad Request: No valid session ID provided")
            return self.error(404, "Session not found")
        if ident is None and MODE.get("deaf"):
            return self.error(404, "no such method")
        if ident is None or method is None:
            if ident in ANSWERS:
                ANSWERS[ident].put(message)
            return self.plain(202, b"", "text/plain")
        return self.called(message, ident, session)

    def called(self, message, ident, session):
        name = (message.get("params") or {}).get("name")
        if message["method"] == "ping" and MODE.get("ping_status"):
            return self.error(MODE["ping_status"], MODE.get("ping_says", "no pings now"))
        if name == "huge":
            size = message["params"]["arguments"]["bytes"]
            self.begin_events()
            self.chunk(b'data: {"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' % ident)
            for _ in range(size // 65536):
                self.chunk(b"x" * 65536)
            self.chunk(b'"}]}}\n\n')
            return self.end_events()
        if name == "cut":
            self.begin_events()
            self.chunk("data: {\"jsonrpc\":")
            self.wfile.flush()
            return self.connection.shutdown(socket.SHUT_RDWR)
        if name == "later":
            self.begin_events()
            self.chunk(f"id: {ident}-1\nretry: 200\ndata:\n\n")
            return self.end_events()
        if name == "fail":
            arguments = message["params"]["arguments"]
            return self.error(arguments["status"], arguments.get("message", "it is broken"))
        if name == "pretty":
            body = {"jsonrpc": "2.0", "id": ident, "result": text("two\nlines")}
            return self.plain(200, json.dumps(body, indent=2).encode(), "application/json; charset=utf-8")
        self.begin_events()
        self.chunk(": hello\n\n")
        if name == "ask":
            question = f"q-{session}-{ident}"
            ANSWERS[question] = queue.Queue()
            params = {"message": "your name?", "requestedSchema": {"type": "object", "properties": {}}}
            self.event({"jsonrpc": "2.0", "id": question, "method": "elicitation/create", "params": params})
            told = ANSWERS[question].get(timeout=30)
            self.event({"jsonrpc": "2.0", "id": ident, "result": text(json.dumps(told.get("result")))})
            return self.end_events()
        token = ((message.get("params") or {}).get("_meta") or {}).get("progressToken")
        if name == "progress" and token is not None:
            for n in range(3):
                note = {"progressToken": token, "progress": n + 1, "total": 3}
                self.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": note})
        answer = self.answer(message, SESSIONS.get(session))
        self.event(answer)
        return self.end_events()

    def answer(self, message, who):
        if message.get("id") is None or message.get("method") is None:
            return None
        return {"jsonrpc": "2.0", "id": message["id"], "result": self.result(message, who)}

    def result(self, message, who=None):
        method, params = message.get("method"), message.get("params") or {}
        if method == "initialize":
            return {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "remote", "version": "1"},
            }
        if method == "tools/list":
            return {"tools": TOOLS}
        if method != "tools/call":
            return {}
        arguments = params.get("arguments") or {}
        if params["name"] == "slow":
            time.sleep(float(arguments.get("seconds", 1)))
            return text("late")
        if params["name"] == "whoami":
            return text(json.dumps({"authorization": self.headers.get("Authorization"), "custom": self.headers.get("X-Who")}))
        return text(str(arguments.get("text", params["name"])))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
    if os.environ.get("CERT"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()
