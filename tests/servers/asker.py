"""An MCP server of 2025-11-25 that asks its client: plain Python, one thread for each call."""

import json
import queue
import sys
import threading

lock = threading.Lock()
answers = {}
state = {"capabilities": None, "roots": None, "level": None, "next": 0, "watched": set()}

QUESTIONS = {
    "elicitation": ("elicitation/create", {"message": "your name?", "requestedSchema": {
        "type": "object", "properties": {"name": {"type": "string"}}}}),
    "url": ("elicitation/create", {"mode": "url", "elicitationId": "e-1", "message": "go there",
            "url": "https://example.org/"}),
    "sampling": ("sampling/createMessage", {"maxTokens": 9, "messages": [
        {"role": "user", "content": {"type": "text", "text": "say"}}]}),
    "roots": ("roots/list", {}),
}


def write(message):
    message["jsonrpc"] = "2.0"
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def pose(kind):
    method, params = QUESTIONS[kind]
    with lock:
        state["next"] += 1
        ident = "own-%d" % state["next"]
        answers[ident] = queue.Queue()
    write({"id": ident, "method": method, "params": params})
    return ident


def heard(ident):
    message = answers[ident].get()
    return message.get("result") or {"error": message["error"]}


def notify(method, params):
    write({"method": method, "params": params})


def tool(name, arguments, meta):
    if name == "ask":
        posed = [pose(kind) for kind in arguments["kinds"]]
        return [heard(ident) for ident in posed]
    if name == "two":
        return [heard(pose("elicitation")), heard(pose("sampling"))]
    if name == "progress":
        token = meta.get("progressToken")
        if token is not None:
            notify("notifications/progress", {"progressToken": token, "progress": 1})
        said = heard(pose("elicitation"))
        if token is not None:
            notify("notifications/progress", {"progressToken": token, "progress": 2})
        return said
    if name == "withdraw":
        ident = pose("elicitation")
        threading.Event().wait(0.3)
        notify("notifications/cancelled", {"requestId": ident})
        return "withdrawn"
    if name == "forgets":
        pose("elicitation")
        return "did not wait"
    if name == "impatient":
        state["impatient"] = pose("elicitation")
        threading.Event().wait(0.5)
        return "ended"
    if name == "last":
        return heard(state["impatient"])
    if name == "needs":
        said = heard(pose("sampling"))
        if "error" in said:
            raise ValueError("cannot: %s" % said["error"]["code"])
        return said
    if name == "log":
        for level in ("debug", "info", "error"):
            notify("notifications/message", {"level": level, "data": level + " of it"})
        return state["level"]
    if name == "roots":
        return state["roots"]
    if name == "touch":
        for uri in arguments["uris"]:
            if uri in state["watched"]:
                notify("notifications/resources/updated", {"uri": uri, "title": "t"})
        return sorted(state["watched"])
    if name == "change":
        notify("notifications/resources/list_changed", {})
        notify("notifications/prompts/list_changed", {})
        notify("notifications/elicitation/complete", {"elicitationId": "e-1"})
        return "changed"
    if name == "large":
        threading.Event().wait(0.3)
        return "y" * (8 << 20)
    if name == "declared":
        return state["capabilities"]
    if name == "visit":
        if state.pop("visited", None):
            return "was there"
        state["visited"] = True
        raise Visit
    raise ValueError("no such tool")


class Visit(Exception):
    """Its user is to visit an address first."""


def call(message):
    params = message["params"]
    try:
        said = tool(params["name"], params.get("arguments", {}), params.get("_meta", {}))
        result = {"content": [{"type": "text", "text": json.dumps(said)}]}
    except Visit:
        write({"id": message["id"], "error": {"code": -32042, "message": "visit first",
               "data": {"elicitations": [QUESTIONS["url"][1]]}}})
        return
    except ValueError as why:
        result = {"content": [{"type": "text", "text": str(why)}], "isError": True}
    write({"id": message["id"], "result": result})


def initial():
    state["roots"] = heard(pose("roots"))


def prompt(message):
    said = heard(pose("elicitation"))
    text = {"type": "text", "text": json.dumps(said)}
    write({"id": message["id"], "result": {"messages": [{"role": "user", "content": text}]}})


TOOLS = ["ask", "two", "progress", "withdraw", "forgets", "needs", "log", "roots", "declared",
         "touch", "change", "impatient", "last", "large", "visit"]

for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method is None:
        with lock:
            waits = answers.get(message["id"])
        if waits:
            waits.put(message)
    elif method == "initialize":
        state["capabilities"] = message["params"]["capabilities"]
        write({"id": message["id"], "result": {
            "protocolVersion": "2025-11-25", "serverInfo": {"name": "asker", "version": "1"},
            "capabilities": {"tools": {}, "prompts": {"listChanged": True}, "logging": {},
                             "resources": {"subscribe": True, "listChanged": True}}}})
    elif method == "notifications/initialized" and "--roots" in sys.argv:
        threading.Thread(target=initial, daemon=True).start()
    elif method == "notifications/roots/list_changed":
        threading.Thread(target=initial, daemon=True).start()
    elif method == "tools/list":
        write({"id": message["id"], "result": {"tools": [
            {"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}})
    elif method == "prompts/list":
        write({"id": message["id"], "result": {"prompts": [{"name": "who"}]}})
    elif method == "prompts/get":
        threading.Thread(target=prompt, args=(message,), daemon=True).start()
    elif method == "resources/subscribe" and message["params"]["uri"].startswith("a:"):
        state["watched"].add(message["params"]["uri"])
        write({"id": message["id"], "result": {}})
    elif method == "resources/unsubscribe":
        state["watched"].discard(message["params"]["uri"])
        write({"id": message["id"], "result": {}})
    elif method == "logging/setLevel":
        state["level"] = message["params"]["level"]
        write({"id": message["id"], "result": {}})
    elif method == "ping":
        write({"id": message["id"], "result": {}})
    elif method == "tools/call":
        threading.Thread(target=call, args=(message,), daemon=True).start()
    elif "id" in message:
        write({"id": message["id"], "error": {"code": -32601, "message": "unknown"}})
