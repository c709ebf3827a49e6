"""An MCP server of 2026-07-28 alone: no sessions, no `initialize`. Over stdio, or with `--http PORT` over Streamable
HTTP (it prints its port), where it wants its headers right. With `--conformance` it has the tools, resources and
prompts of conformance.py, and tasks (modern_tasks.py); with `--both` it also answers `initialize`. Plain Python 3."""

import base64
import contextlib
import hashlib
import hmac
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import conformance
import modern_tasks
from conformance import Failure

VERSION = "2026-07-28"
P = "io.modelcontextprotocol/"
MISMATCH, CAPABILITY, UNSUPPORTED = -32020, -32021, -32022
SECRET = b"of this fixture"
LOCAL = ("localhost", "127.0.0.1", "[::1]")
# What the conformance suite calls what is asked.
NAMES = {
    "What is your name?": "user_name",
    "Please confirm": "confirm",
    "Step 1: What is your name?": "step1",
    "Step 2: What is your favorite color?": "step2",
    "What context?": "user_context",
    "What is the capital of France?": "capital_question",
    "Generate a greeting": "greeting",
}
KINDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
# Which of the suite's tools are to give a state though they could do without.
STATED = ("request_state", "tampered_state", "multiple_inputs", "multi_round")


class Needs(Exception):
    """Answers are needed: what is asked, and the state that comes back with them."""

    def __init__(self, requests, state):
        super().__init__()
        self.result = {"resultType": "input_required", "inputRequests": requests}
        if state is not None:
            self.result["requestState"] = state


def sealed(answers):
    body = base64.urlsafe_b64encode(json.dumps(answers).encode()).decode()
    return body + "." + hmac.new(SECRET, body.encode(), hashlib.sha256).hexdigest()


def opened(state):
    body, _, mac = state.partition(".")
    if not hmac.compare_digest(mac, hmac.new(SECRET, body.encode(), hashlib.sha256).hexdigest()):
        raise Failure(conformance.INVALID_PARAMS, "this requestState was not made here")
    return json.loads(base64.urlsafe_b64decode(body))


class Listeners:
    """Open subscriptions: by their ids, what was asked for and where it is told."""

    def __init__(self):
        self.open = {}
        self.lock = threading.Lock()
        self.opened = 0

    def tell(self, kind, method, params=None):
        with self.lock:
            open_ones = list(self.open.items())
        for ident, (wanted, say) in open_ones:
            uri = (params or {}).get("uri")
            if uri in wanted.get("resourceSubscriptions", []) if kind == "uri" else wanted.get(kind):
                meta = {P + "subscriptionId": json.loads(ident)}
                # One that has just gone keeps nothing from the others.
                with contextlib.suppress(OSError):
                    say({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta, **(params or {})}})


LISTENERS = Listeners()
CHANGES = {"notifications/tools/list_changed": "toolsListChanged", "notifications/prompts/list_changed": "promptsListChanged",
           "notifications/resources/list_changed": "resourcesListChanged", "notifications/resources/updated": "uri"}


class Call:
    """A request, what it says of its client, and what its handler may say and ask meanwhile."""

    def __init__(self, message, say):
        self.id = message["id"]
        self.params = message.get("params") or {}
        self.meta = self.params.get("_meta") or {}
        self.say = say
        self.token = self.meta.get("progressToken")
        self.level = self.meta.get(P + "logLevel")
        self.capabilities = self.meta.get(P + "clientCapabilities") or {}
        state = self.params.get("requestState")
        self.known = opened(state) if state is not None else {}
        given = self.params.get("inputResponses") or {}
        self.known.update({name: value for name, value in given.items() if isinstance(value, dict)})
        self.session = self
        self.asked = 0

    def tell(self, method, params=None):
        LISTENERS.tell(CHANGES[method], method, params)

    def pause(self, seconds):
        time.sleep(seconds)

    def progress(self, done, total=None):
        if self.token is not None:
            told = {"progressToken": self.token, "progress": done, **({"total": total} if total else {})}
            self.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})

    def log(self, level, data):
        if self.level and conformance.LEVELS.index(level) >= conformance.LEVELS.index(self.level):
            params = {"level": level, "logger": "modern", "data": data}
            self.say({"jsonrpc": "2.0", "method": "notifications/message", "params": params})

    def name_of(self, method, params):
        self.asked += 1
        words = params.get("message") or ((params.get("messages") or [{}])[0].get("content") or {}).get("text")
        return "client_roots" if method == "roots/list" else NAMES.get(words, f"own {self.asked}")

    def ask_all(self, *questions):
        """Answers, as far as they are there; asks for the rest. What the client cannot answer is a failure."""
        answers, missing = [], {}
        for method, params in questions:
            name, kind = self.name_of(method, params), KINDS[method]
            if kind not in self.capabilities:
                data = {"requiredCapabilities": {kind: {}}}
                answers.append(Failure(CAPABILITY, f"the client does not answer {method}", data))
            elif name in self.known:
                answers.append(self.known[name])
            else:
                missing[name] = {"method": method, "params": params}
        if missing:
            stated = self.known or self.params.get("name", "").endswith(STATED)
            raise Needs(missing, sealed(self.known) if stated else None)
        return answers

    def ask(self, method, params):
        answer = self.ask_all((method, params))[0]
        if isinstance(answer, Failure):
            raise answer
        return answer


# --- tools of our own -----------------------------------------------------------

QUESTIONS = {
    "elicitation": ("elicitation/create", {"message": "your name?", "requestedSchema": {
        "type": "object", "properties": {"name": {"type": "string"}}}}),
    "url": ("elicitation/create", {"mode": "url", "message": "go there", "url": "https://example.org/"}),
    "sampling": ("sampling/createMessage", {"maxTokens": 9, "messages": [
        {"role": "user", "content": {"type": "text", "text": "say"}}]}),
    "roots": ("roots/list", {}),
}
RUNS = {"calls": 0}


def own_tool(call, name, arguments):
    RUNS["calls"] += 1
    if name == "ask":
        all_of_them = call.ask_all(*[QUESTIONS[kind] for kind in arguments["kinds"]])
        return [one.error if isinstance(one, Failure) else one for one in all_of_them]
    if name == "two":
        return [call.ask(*QUESTIONS["elicitation"]), call.ask(*QUESTIONS["sampling"])]
    if name == "progress":
        call.progress(1 if not call.known else 2)
        return call.ask(*QUESTIONS["elicitation"])
    if name == "log":
        for level in ("debug", "info", "error"):
            call.log(level, level + " of it")
        return call.level
    if name == "meta":
        return call.meta
    if name == "calls":
        return RUNS["calls"]
    if name == "slow":
        time.sleep(arguments["seconds"])
        return "slept"
    if name == "listens":
        with LISTENERS.lock:
            return [wanted for wanted, _ in LISTENERS.open.values()]
    if name == "touch":
        for uri in arguments["uris"]:
            call.tell("notifications/resources/updated", {"uri": uri})
        return "touched"
    if name == "grow":
        TOOLS.append("grown")
        call.tell("notifications/tools/list_changed")
        return "grown"
    if name == "change":
        call.tell("notifications/resources/list_changed")
        call.tell("notifications/prompts/list_changed")
        return "changed"
    if name == "greedy":
        raise Needs({"q": {"method": "sampling/createMessage", "params": QUESTIONS["sampling"][1]}}, "s")
    if name == "endless":
        raise Needs({}, sealed({}))
    if name == "header":
        return arguments.get("region")
    raise Failure(conformance.INVALID_PARAMS, "no such tool")


TOOLS = ["ask", "two", "progress", "log", "meta", "calls", "slow", "listens", "touch", "change", "grow", "greedy",
         "endless"]
HEADER = {"name": "header", "inputSchema": {"type": "object", "properties": {
    "region": {"type": "string", "x-mcp-header": "Region"}}}}
WRONG = {"name": "wrong", "inputSchema": {"type": "object", "properties": {
    "list": {"type": "array", "x-mcp-header": "List"}}}}


def call_own(call, params):
    if params["name"] == "unknown":
        return {"resultType": "of-tomorrow"}
    return {"content": [{"type": "text", "text": json.dumps(own_tool(call, params["name"], params.get("arguments") or {}))}]}


def own_prompt(call, _params):
    said = call.ask(*QUESTIONS["elicitation"])
    return {"messages": [{"role": "user", "content": {"type": "text", "text": json.dumps(said)}}]}


def own_read(_call, params):
    if not params["uri"].startswith("a:"):
        raise Failure(conformance.INVALID_PARAMS, "no such resource", {"uri": params["uri"]})
    return {"contents": [{"uri": params["uri"], "text": "of it"}]}


OWN = {
    "tools/list": lambda _call, _params: {"tools": [
        {"name": name, "inputSchema": {"type": "object"}} for name in TOOLS + ["unknown"]] + [HEADER, WRONG]},
    "tools/call": call_own,
    "prompts/list": lambda _call, _params: {"prompts": [{"name": "who"}]},
    "prompts/get": own_prompt,
    "resources/list": lambda _call, _params: {"resources": [{"uri": "a:1", "name": "one"}], "ttlMs": 77, "cacheScope": "public"},
    "resources/read": own_read,
}

# --- those of the suite ------------------------------------------------------------


def call_suite(call, params):
    name, arguments = params.get("name"), params.get("arguments") or {}
    found = conformance.TOOLS.get(name)
    if not found:
        raise Failure(conformance.INVALID_PARAMS, f"no tool {name}")
    if conformance.SUPPORT[name] == "required":
        modern_tasks.declared(call)
    if conformance.FIRST[name]:
        arguments = {**arguments, "first": conformance.FIRST[name](call, arguments)}
    if conformance.SUPPORT[name] and modern_tasks.takes(call):
        return modern_tasks.Task(call, found[1], arguments).begun()
    return ran(call, found[1], arguments)


def ran(call, run, arguments):
    try:
        content = run(call, arguments)
    except Failure as failure:
        if failure.error["code"] == CAPABILITY:
            raise
        return {"content": [conformance.text(str(failure))], "isError": True}
    except RuntimeError as error:
        return {"content": [conformance.text(str(error))], "isError": True}
    return {"content": [conformance.text(content)] if isinstance(content, str) else content}


def read_suite(call, params):
    try:
        return conformance.read_resource(call, params)
    except Failure as failure:
        failure.error["code"] = conformance.INVALID_PARAMS
        raise


def list_suite(_call, _params):
    # Which works as a task is not said in this version.
    return {"tools": [{name: said for name, said in shown.items() if name != "execution"} for shown, _ in conformance.TOOLS.values()]}


METHODS = OWN
if "--conformance" in sys.argv:
    METHODS = {**conformance.METHODS, "tools/list": list_suite, "tools/call": call_suite, "resources/read": read_suite,
               **modern_tasks.METHODS}
    for gone in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/result"):
        del METHODS[gone]


def discover(_call, _params):
    changes = {"listChanged": True}
    capabilities = {"tools": changes, "prompts": changes, "resources": {"subscribe": True, **changes}, "logging": {},
                    "completions": {}}
    if "--conformance" in sys.argv:
        capabilities["extensions"] = {modern_tasks.EXTENSION: {}}
    versions = [VERSION] + (["2025-11-25"] if "--both" in sys.argv else [])
    return {"supportedVersions": versions, "capabilities": capabilities}


METHODS["server/discover"] = discover
CACHED = ("server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read")


def checked(message):
    meta = (message.get("params") or {}).get("_meta") or {}
    version = meta.get(P + "protocolVersion")
    if version is None or not isinstance(meta.get(P + "clientCapabilities"), dict):
        raise Failure(conformance.INVALID_PARAMS, f"_meta says too little: {meta}")
    if version != VERSION:
        raise Failure(UNSUPPORTED, "unsupported version", {"supported": [VERSION], "requested": version})
    if message["method"] not in METHODS:
        raise Failure(conformance.METHOD_NOT_FOUND, f"no method {message['method']}")


def answer(message, say):
    """The answer to a request; `say` takes what is told meanwhile."""
    method = message["method"]
    try:
        checked(message)
        call = Call(message, say)
        result = METHODS[method](call, call.params)
    except Needs as needs:
        result = needs.result
    except Failure as failure:
        return {"jsonrpc": "2.0", "id": message["id"], "error": failure.error}
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
        body = {"code": conformance.INTERNAL_ERROR, "message": f"{type(error).__name__}: {error}"}
        return {"jsonrpc": "2.0", "id": message["id"], "error": body}
    result = {"resultType": "complete", "_meta": {P + "serverInfo": {"name": "modern", "version": "1"}}, **result}
    if method in CACHED and result["resultType"] == "complete":
        result = {"ttlMs": 0, "cacheScope": "private", **result}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def listen(message, say):
    """Opens a subscription; gives what it is found by."""
    wanted = message["params"]["notifications"]
    ident = json.dumps(message["id"])
    meta = {P + "subscriptionId": message["id"]}
    told = {"_meta": meta, "notifications": wanted}
    # Nobody is told in between: a client that reads of it may close the one before.
    with LISTENERS.lock:
        say({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": told})
        LISTENERS.open[ident] = (wanted, say)
    return ident


def forget(ident):
    with LISTENERS.lock:
        LISTENERS.open.pop(ident, None)


def serve_stdio():
    lock = threading.Lock()

    def say(message):
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    legacy = conformance.Session(lambda message, _of: say(message)) if "--both" in sys.argv else None
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            if message["method"] == "notifications/cancelled":
                forget(json.dumps(message["params"]["requestId"]))
            continue
        if legacy and P not in line and message.get("method") != "server/discover":
            legacy.hear(message)
        elif message["method"] == "subscriptions/listen":
            listen(message, say)
        else:
            threading.Thread(target=lambda message=message: say(answer(message, say)), daemon=True).start()


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

    def header_of(self, name):
        text = self.headers.get(name)
        if text and text.startswith("=?base64?") and text.endswith("?="):
            return base64.b64decode(text[9:-2]).decode()
        return text

    def mismatch(self, message):
        params = message.get("params") or {}
        meta = params.get("_meta") or {}
        wanted = {"MCP-Protocol-Version": meta.get(P + "protocolVersion"), "Mcp-Method": message["method"]}
        if message["method"] in ("tools/call", "prompts/get"):
            wanted["Mcp-Name"] = params.get("name")
        if message["method"] == "resources/read":
            wanted["Mcp-Name"] = params.get("uri")
        if message["method"].startswith("tasks/"):
            wanted["Mcp-Name"] = params.get("taskId")
        region = (params.get("arguments") or {}).get("region")
        if message["method"] == "tools/call" and region is not None:
            wanted["Mcp-Param-Region"] = region
        for name, value in wanted.items():
            if self.header_of(name) != value:
                return f"{name} is {self.headers.get(name)!r}, and the message says {value!r}"
        return None

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "id" not in message:
            # Clients of this version have nothing to notify of.
            return self.reply(400)
        why = self.mismatch(message)
        if why:
            return self.reply(400, {"jsonrpc": "2.0", "id": message["id"], "error": {"code": MISMATCH, "message": why}})
        meta = (message.get("params") or {}).get("_meta") or {}
        if message["method"] == "subscriptions/listen":
            return self.stream(message)
        if message["method"] == "tools/call" and (P + "logLevel" in meta or "progressToken" in meta):
            self.begin()
            self.event(answer(message, self.event))
            self.close_connection = True
            return None
        said = answer(message, lambda _: None)
        code = said.get("error", {}).get("code")
        status = {conformance.METHOD_NOT_FOUND: 404, CAPABILITY: 400, UNSUPPORTED: 400}.get(code, 200)
        return self.reply(status, said)

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def event(self, message):
        self.wfile.write(b"data: " + json.dumps(message).encode() + b"\n\n")
        self.wfile.flush()

    def stream(self, message):
        self.begin()
        ident = listen(message, self.event)
        try:
            while True:
                time.sleep(0.2)
                self.wfile.write(b": alive\n\n")
                self.wfile.flush()
        except OSError:
            self.close_connection = True
        finally:
            forget(ident)


if __name__ == "__main__":
    modern_tasks.ran = ran
    if "--http" in sys.argv:
        server = ThreadingHTTPServer(("localhost", int(sys.argv[sys.argv.index("--http") + 1])), Handler)
        print(server.server_address[1], flush=True)
        server.serve_forever()
    else:
        serve_stdio()
