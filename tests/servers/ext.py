"""A server of 2025-11-25 or of 2026-07-28 that says much of itself and has extensions; it tells what it was told."""
import json, sys

ERA = sys.argv[1]
P = "io.modelcontextprotocol/"
NAMED = {"name": "ext", "version": "9.9", "title": "T"}
CAN = {"tools": {}, "extensions": {P + "ui": {"mimeTypes": ["text/html"]}, "com.example/ext": {"a": {"b": 1}}}}
begun = {}


def result(method, params):
    if ERA == "legacy" and method == "initialize":
        begun.update(params)
        return {"protocolVersion": "2025-11-25", "capabilities": CAN, "serverInfo": NAMED,
                "instructions": "Call told first."}
    if ERA == "modern" and method == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": CAN, "instructions": "Call told first.",
                "ttlMs": 0, "cacheScope": "private", "_meta": {P + "serverInfo": NAMED}}
    if method == "tools/list":
        return {"tools": [{"name": "told", "inputSchema": {"type": "object"}}], "ttlMs": 0, "cacheScope": "private"}
    if method == "tools/call":
        said = {"begun": begun, "params": params}
        return {"content": [{"type": "text", "text": json.dumps(said)}],
                "_meta": {P + "serverInfo": {**NAMED, "more": 1}}}
    if method == "example/list":
        return {"items": [1.0e2], "said": params}
    if method == "ping":
        return {}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    params = message.get("params") or {}
    found = result(message["method"], params)
    if "error" in (params.get("arguments") or {}):
        answer = {"error": params["arguments"]["error"]}
    elif found is None:
        answer = {"error": {"code": -32601, "message": "no such method"}}
    else:
        answer = {"result": {**({"resultType": "complete"} if ERA == "modern" else {}), **found}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
