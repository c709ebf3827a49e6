"""An MCP server of both eras over Streamable HTTP, whose first request meets it broken (`--first 503`) or cold
(`--first cold`: it takes 4 s). Prints its port. Plain Python 3."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST = sys.argv[sys.argv.index("--first") + 1] if "--first" in sys.argv else None
LOCK = threading.Lock()
MET = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, message=None):
        body = json.dumps(message).encode() if message is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(405)

    do_DELETE = do_GET

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            MET.append(1)
            is_first = len(MET) == 1
        if is_first and FIRST == "503":
            return self.reply(503)
        if is_first and FIRST == "cold":
            time.sleep(4)
        if "id" not in message:
            return self.reply(202)
        era = "modern" if self.headers.get("Mcp-Method") else "legacy"
        known = {
            "tools/list": {"tools": [{"name": "era", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": json.dumps(era)}]},
            "ping": {},
        }
        if era == "modern":
            known["server/discover"] = {"supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": {"tools": {}}}
        else:
            known["initialize"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                                   "serverInfo": {"name": "dual", "version": "1"}}
        if message["method"] not in known:
            error = {"code": -32601, "message": f"no method {message['method']}"}
            return self.reply(404, {"jsonrpc": "2.0", "id": message["id"], "error": error})
        result = known[message["method"]]
        if era == "modern":
            result = {"resultType": "complete", **result}
        return self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})


if __name__ == "__main__":
    server = ThreadingHTTPServer(("localhost", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
