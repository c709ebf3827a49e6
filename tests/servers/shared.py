"""An MCP server that many share: plain Python, one thread for each call. Everything it says of a call has the call's
own words in it, so that whoever is told another's words sees it."""

import json
import sys
import threading
import time

lock = threading.Lock()
cancelled = set()
watched = set()


def write(message):
    message["jsonrpc"] = "2.0"
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def call(message):
    params = message["params"]
    words = params["arguments"].get("words")
    token = params.get("_meta", {}).get("progressToken")
    # A question under the id of the call: it is nobody's, and must not be taken for an answer.
    write({"id": message["id"], "method": "roots/list", "params": {}})
    for step in range(1, 1 + params["arguments"].get("steps", 0)):
        if token is not None:
            write({"method": "notifications/progress",
                   "params": {"progressToken": token, "progress": step, "message": words}})
        time.sleep(0.02)
        if message["id"] in cancelled:
            return
    result = {"content": [{"type": "text", "text": words}]}
    write({"id": message["id"], "result": result})


for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        write({"id": message["id"], "result": {
            "protocolVersion": "2025-11-25", "serverInfo": {"name": "shared", "version": "1"},
            "capabilities": {"tools": {}, "resources": {"subscribe": True}}}})
    elif method == "tools/list":
        write({"id": message["id"], "result": {"tools": [
            {"name": "steps", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        threading.Thread(target=call, args=(message,), daemon=True).start()
    elif method == "notifications/cancelled":
        cancelled.add(message["params"]["requestId"])
    elif method in ("resources/subscribe", "resources/unsubscribe"):
        uri = message["params"]["uri"]
        (watched.add if method.endswith("/subscribe") else watched.discard)(uri)
        write({"id": message["id"], "result": {}})
        if uri in watched:
            write({"method": "notifications/resources/updated", "params": {"uri": uri}})
    elif method is not None and "id" in message:
        write({"id": message["id"], "result": {}})
