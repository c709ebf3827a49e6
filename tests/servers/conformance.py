"""The MCP server that the official conformance suite wants to meet: everything of 2025-11-25, over stdio, with
the names and answers the suite asks for. `--http PORT` serves the same without a gateway (conformance_http.py), so
that what the fixture itself gets wrong is known; `--odd FILE` writes JSON as nobody does and keeps a copy. Plain Python 3.

Of 2026-07-28 it knows nothing: what the suite wants of that version (`test_input_required_result_*` and the other
tools at the end) is here as a server of the older version would do it, by asking its client and waiting, and as tasks
of 2025-11-25."""

import json
import queue
import sys
import threading
import time
import uuid

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
ANSWER_WAIT = 60
METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR, RESOURCE_NOT_FOUND = -32601, -32602, -32603, -32002


class Failure(Exception):
    """A JSON-RPC error: of ours, or what a client answered."""

    def __init__(self, code, message, data=None):
        super().__init__(message)
        self.error = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class Session:
    """One client. `say(message, of)` is the transport: `of` is the id of the request that a message belongs to."""

    def __init__(self, say):
        self.say = say
        self.level = 0
        self.capabilities = {}
        self.subscribed = set()
        self.waiting = {}
        self.asked = 0
        self.lock = threading.Lock()

    def hear(self, message):
        """Takes what the client says; a request is answered from a thread of its own."""
        if "method" not in message:
            with self.lock:
                waiter = self.waiting.pop(message.get("id"), None)
            if waiter:
                waiter.put(message)
        elif "id" in message:
            threading.Thread(target=self.answer, args=(message,), daemon=True).start()

    def answer(self, message):
        call = Call(self, message)
        try:
            handler = METHODS.get(message["method"])
            if not handler:
                raise Failure(METHOD_NOT_FOUND, f"no method {message['method']}")
            body = {"result": handler(call, message.get("params") or {})}
        except Failure as failure:
            body = {"error": failure.error}
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            body = {"error": {"code": INTERNAL_ERROR, "message": f"{type(error).__name__}: {error}"}}
        self.say({"jsonrpc": "2.0", "id": message["id"], **body}, message["id"])

    def tell(self, method, params=None, of=None):
        self.say({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})}, of)


class Call:
    """A request under way, and what its handler may say meanwhile."""

    def __init__(self, session, message):
        self.session = session
        self.message = message
        self.id = message["id"]
        self.token = ((message.get("params") or {}).get("_meta") or {}).get("progressToken")

    def progress(self, done, total):
        if self.token is not None:
            told = {"progressToken": self.token, "progress": done, "total": total, "message": f"step {done} of {total}"}
            self.session.tell("notifications/progress", told, self.id)

    def log(self, level, data):
        if LEVELS.index(level) >= self.session.level:
            self.session.tell("notifications/message", {"level": level, "logger": "conformance", "data": data}, self.id)

    def ask_all(self, *questions):
        """Asks the client several things at once; a list of results and failures."""
        waiters = []
        for method, params in questions:
            waiter = queue.Queue()
            with self.session.lock:
                self.session.asked += 1
                number = self.session.asked
                self.session.waiting[number] = waiter
            waiters.append(waiter)
            self.session.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params}, self.id)
        answers = []
        for waiter in waiters:
            answer = waiter.get(timeout=ANSWER_WAIT)
            error = answer.get("error")
            answers.append(Failure(error["code"], error["message"]) if error else answer["result"])
        return answers

    def ask(self, method, params):
        answer = self.ask_all((method, params))[0]
        if isinstance(answer, Failure):
            raise answer
        return answer

    def pause(self, seconds):
        time.sleep(seconds)


# --- tasks --------------------------------------------------------------------

RELATED = "io.modelcontextprotocol/related-task"
TASKS = {}


class Task(Call):
    """A call that its client does not wait for: what it asks says for which task."""

    def __init__(self, session, message):
        super().__init__(session, message)
        self.ident = str(uuid.uuid4())
        self.status = "working"
        self.ttl = message["params"]["task"].get("ttl")
        self.made = self.now()
        self.done = threading.Event()
        self.answer = None
        TASKS[self.ident] = self

    @staticmethod
    def now():
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def related(self):
        return {RELATED: {"taskId": self.ident}}

    def shown(self):
        return {"taskId": self.ident, "status": self.status, "createdAt": self.made, "lastUpdatedAt": self.now(),
                "ttl": self.ttl, "pollInterval": 200}

    def stands(self, status):
        if not self.done.is_set():
            self.status = status
            self.session.tell("notifications/tasks/status", self.shown())

    def ask_all(self, *questions):
        self.stands("input_required")
        answers = super().ask_all(*[(method, {**params, "_meta": self.related()}) for method, params in questions])
        self.stands("working")
        return answers

    def pause(self, seconds):
        self.done.wait(seconds)

    def ends(self, status, answer):
        if not self.done.is_set():
            self.status, self.answer = status, answer
            self.done.set()

    def work(self, run, arguments):
        try:
            result = ran(self, run, arguments)
            self.ends("failed" if result.get("isError") else "completed", result)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            self.ends("failed", Failure(INTERNAL_ERROR, f"{type(error).__name__}: {error}"))


def about_task(method):
    def handler(_call, params):
        task = TASKS.get(params.get("taskId"))
        if not task:
            raise Failure(INVALID_PARAMS, f"no task {params.get('taskId')}")
        if method == "tasks/cancel":
            task.ends("cancelled", Failure(INTERNAL_ERROR, "cancelled"))
        if method != "tasks/result":
            return task.shown()
        task.done.wait()
        if isinstance(task.answer, Failure):
            raise task.answer
        return {**task.answer, "_meta": task.related()}

    return handler


# --- what is asked of clients -------------------------------------------------


def form(message, required=None, **properties):
    schema = {"type": "object", "properties": properties, "required": required if required is not None else list(properties)}
    return "elicitation/create", {"message": message, "requestedSchema": schema}


def sample(prompt, most=100):
    content = {"type": "text", "text": prompt}
    return "sampling/createMessage", {"messages": [{"role": "user", "content": content}], "maxTokens": most}


def filled(answer, field):
    return (answer.get("content") or {}).get(field)


STRING = {"type": "string"}
SEP1034 = {
    "name": {"type": "string", "description": "User name", "default": "John Doe"},
    "age": {"type": "integer", "description": "User age", "default": 30},
    "score": {"type": "number", "description": "User score", "default": 95.5},
    "status": {"type": "string", "description": "User status", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "description": "Verification status", "default": True},
}


def titled(noun):
    ordinals = ["First", "Second", "Third"]
    return [{"const": f"value{n + 1}", "title": f"{word} {noun}"} for n, word in enumerate(ordinals)]


OPTIONS = ["option1", "option2", "option3"]
SEP1330 = {
    "untitledSingle": {"type": "string", "description": "Select one", "enum": OPTIONS},
    "titledSingle": {"type": "string", "description": "Select one", "oneOf": titled("Option")},
    "legacyEnum": {
        "type": "string",
        "description": "Select one",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "description": "Select some", "minItems": 1, "maxItems": 3, "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "description": "Select some", "minItems": 1, "maxItems": 3, "items": {"anyOf": titled("Choice")}},
}

# --- tools --------------------------------------------------------------------

TOOLS, SUPPORT, FIRST = {}, {}, {}
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def tool(ident, description, schema=None, support=None, first=None, **properties):
    """Registers a function of call and arguments that gives a text or a list of content. `support` is whether it works
    as a task, `first` what it does before it is one; what that gives is its argument of this name."""
    schema = schema or {"type": "object", "properties": properties}
    execution = {"execution": {"taskSupport": support}} if support else {}

    def register(run):
        TOOLS[ident] = ({"name": ident, "description": description, "inputSchema": schema, **execution}, run)
        SUPPORT[ident], FIRST[ident] = support, first
        return run

    return register


def text(words):
    return {"type": "text", "text": words}


def embedded(uri, mime, words):
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": words}}


IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}


@tool("test_simple_text", "Answers a text")
def simple_text(_call, _arguments):
    return "This is a simple text response for testing."


@tool("test_image_content", "Answers an image")
def image_content(_call, _arguments):
    return [IMAGE]


@tool("test_audio_content", "Answers a sound")
def audio_content(_call, _arguments):
    return [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]


@tool("test_embedded_resource", "Answers a resource")
def embedded_resource(_call, _arguments):
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@tool("test_multiple_content_types", "Answers a text, an image and a resource")
def multiple_content_types(_call, _arguments):
    resource = embedded("test://mixed-content-resource", "application/json", json.dumps({"test": "data", "value": 123}))
    return [text("Multiple content types test:"), IMAGE, resource]


@tool("test_tool_with_logging", "Logs while it works")
def tool_with_logging(call, _arguments):
    for words in ["Tool execution started", "Tool processing data", "Tool execution completed"]:
        call.log("info", words)
        time.sleep(0.05)
    return "Tool with logging executed successfully"


@tool("test_tool_with_progress", "Tells of its progress")
def tool_with_progress(call, _arguments):
    for done in [0, 50, 100]:
        call.progress(done, 100)
        time.sleep(0.05)
    return str(call.token)


@tool("test_error_handling", "Fails")
def error_handling(_call, _arguments):
    raise RuntimeError("This tool intentionally returns an error for testing")


@tool("test_reconnection", "Takes a moment, for clients that lose their stream meanwhile")
def reconnection(_call, _arguments):
    time.sleep(0.1)
    return "Reconnection test completed successfully."


@tool("json_schema_2020_12_tool", "Has a schema with everything of JSON Schema 2020-12", SCHEMA_2020_12)
def json_schema(_call, arguments):
    return f"called with {json.dumps(arguments)}"


@tool("test_sampling", "Asks a model", prompt=STRING)
def sampling(call, arguments):
    answer = call.ask(*sample(arguments.get("prompt", "")))
    return f"LLM response: {(answer.get('content') or {}).get('text')}"


def elicited(answer):
    return f"action={answer.get('action')}, content={json.dumps(answer.get('content') or {})}"


@tool("test_elicitation", "Asks the user", message=STRING)
def elicitation(call, arguments):
    response = {"type": "string", "description": "User's response"}
    return "User response: " + elicited(call.ask(*form(arguments.get("message", ""), response=response)))


@tool("test_elicitation_sep1034_defaults", "Asks the user with defaults for every type")
def elicitation_defaults(call, _arguments):
    return "Elicitation completed: " + elicited(call.ask(*form("Please review the defaults", [], **SEP1034)))


@tool("test_elicitation_sep1330_enums", "Asks the user with every kind of choice")
def elicitation_enums(call, _arguments):
    return "Elicitation completed: " + elicited(call.ask(*form("Please select", [], **SEP1330)))


# --- what the suite wants of 2026-07-28, as a server of 2025-11-25 does it ------


@tool("test_missing_capability", "Needs a client that samples")
def missing_capability(call, _arguments):
    call.ask(*sample("anything"))
    return "Success"


@tool("test_input_required_result_elicitation", "Asks for a name")
def ask_name(call, _arguments):
    return f"Hello, {filled(call.ask(*form('What is your name?', name=STRING)), 'name')}!"


@tool("test_input_required_result_sampling", "Asks a model for a capital")
def ask_capital(call, _arguments):
    answer = call.ask(*sample("What is the capital of France?"))
    return f"Sampling result: {(answer.get('content') or {}).get('text')}"


@tool("test_input_required_result_list_roots", "Asks for roots")
def ask_roots(call, _arguments):
    return f"Found {len(call.ask('roots/list', {})['roots'])} root(s)"


@tool("test_input_required_result_request_state", "Asks whether it may")
def ask_confirmation(call, _arguments):
    confirmed = filled(call.ask(*form("Please confirm", ok={"type": "boolean"})), "ok")
    return "state-ok: confirmed" if confirmed else "not confirmed"


@tool("test_input_required_result_tampered_state", "Asks whether it may")
def ask_untampered(call, arguments):
    return ask_confirmation(call, arguments)


@tool("test_input_required_result_multiple_inputs", "Asks three things at once")
def ask_three(call, _arguments):
    name, greeting, roots = call.ask_all(form("What is your name?", name=STRING), sample("Generate a greeting", 50), ("roots/list", {}))
    for answer in (name, greeting, roots):
        if isinstance(answer, Failure):
            raise answer
    return f"Name: {filled(name, 'name')}; Greeting: {greeting['content']['text']}; Roots: {len(roots['roots'])}"


@tool("test_input_required_result_multi_round", "Asks twice, one after the other")
def ask_twice(call, _arguments):
    name = filled(call.ask(*form("Step 1: What is your name?", name=STRING)), "name")
    color = filled(call.ask(*form("Step 2: What is your favorite color?", color=STRING)), "color")
    return f"Multi-round complete for {name} who likes {color}"


@tool("test_input_required_result_capabilities", "Asks two things at once, and makes do with one answer")
def ask_either(call, _arguments):
    answers = call.ask_all(form("Elicitation input", value=STRING), sample("Sample request", 50))
    if all(isinstance(answer, Failure) for answer in answers):
        raise answers[0]
    return f"capabilities-ok: {sum(not isinstance(answer, Failure) for answer in answers)} of 2"


@tool("test_streaming_elicitation", "Tells of its progress, then asks")
def streaming_elicitation(call, _arguments):
    call.progress(50, 100)
    call.ask(*form("Shall it go on?", ok={"type": "boolean"}))
    return "Streaming complete"


@tool("test_logging_tool", "Logs")
def logging_tool(call, _arguments):
    call.log("info", "Diagnostic trace logging activated")
    return "Logging evaluated"


@tool("test_trigger_tool_change", "Says that its tools have changed")
def trigger_tool_change(call, _arguments):
    call.session.tell("notifications/tools/list_changed")
    return "Mutation triggered"


@tool("test_trigger_prompt_change", "Says that its prompts have changed")
def trigger_prompt_change(call, _arguments):
    call.session.tell("notifications/prompts/list_changed")
    return "Mutation triggered"


REGION = {"type": "string", "description": "Where it runs", "x-mcp-header": "Region"}


@tool("test_header_param", "Has an argument that clients repeat in a header", region=REGION)
def header_param(_call, arguments):
    return f"region={arguments.get('region')}"


@tool("greet", "Greets", name=STRING)
def greet(_call, arguments):
    return f"Hello, {arguments.get('name')}!"


@tool("slow_compute", "Takes its time", support="optional", seconds={"type": "number"}, label=STRING)
def slow_compute(call, arguments):
    call.pause(arguments.get("seconds", 0))
    return f"{arguments.get('label')}: computed"


@tool("failing_job", "Fails after a while, and only as a task", support="required")
def failing_job(call, _arguments):
    call.pause(0.5)
    raise RuntimeError("This job fails")


@tool("protocol_error_job", "Breaks", support="optional")
def protocol_error_job(_call, _arguments):
    raise ValueError("This job is broken")


@tool("confirm_delete", "Asks before it deletes", support="optional", filename=STRING)
def confirm_delete(call, arguments):
    name = arguments.get("filename")
    try:
        confirmed = filled(call.ask(*form(f"Delete {name}?", confirm={"type": "boolean"})), "confirm")
    except Failure:
        # Who cannot be asked has not said yes.
        confirmed = False
    return f"deleted {name}" if confirmed else f"kept {name}"


@tool("multi_input", "Asks two things at once", support="optional")
def multi_input(call, _arguments):
    answers = call.ask_all(form("One name?", name=STRING), form("Another name?", name=STRING))
    return ", ".join(str(filled(answer, "name")) for answer in answers if not isinstance(answer, Failure))


def name_first(call, _arguments):
    return filled(call.ask(*form("What is your name?", name=STRING)), "name")


@tool("test_tool_with_task", "Asks for a name, and greets as a task", support="required", first=name_first)
def tool_with_task(_call, arguments):
    return f"Hello, {arguments['first']}!"


@tool("test_ask_as_task", "Asks for a name, and only as a task", support="required")
def ask_as_task(call, _arguments):
    return f"Hello, {name_first(call, _arguments)}!"


# --- resources and prompts ------------------------------------------------------

RESOURCES = {
    "test://static-text": ("static-text", "text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("static-binary", "image/png", None),
    "test://watched-resource": ("watched-resource", "text/plain", "Watched resource content"),
}
TEMPLATE = ("test://template/", "/data")


def user(content):
    return {"role": "user", "content": content}


def prompt_with_arguments(_call, given):
    return [user(text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"))]


def prompt_with_resource(_call, given):
    resource = embedded(given.get("resourceUri", "test://none"), "text/plain", "Embedded resource content for testing.")
    return [user(resource), user(text("Please process the embedded resource above."))]


def prompt_that_asks(call, _given):
    return [user(text(f"Prompt with context: {filled(call.ask(*form('What context?', context=STRING)), 'context')}"))]


PROMPTS = {
    "test_simple_prompt": ([], lambda _call, _given: [user(text("This is a simple prompt for testing."))]),
    "test_prompt_with_arguments": (["arg1", "arg2"], prompt_with_arguments),
    "test_prompt_with_embedded_resource": (["resourceUri"], prompt_with_resource),
    "test_prompt_with_image": ([], lambda _call, _given: [user(IMAGE), user(text("Please analyze the image above."))]),
    "test_input_required_result_prompt": ([], prompt_that_asks),
}

# --- methods ----------------------------------------------------------------------


def initialize(call, params):
    call.session.capabilities = params.get("capabilities") or {}
    changes = {"listChanged": True}
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": {
            "tools": changes,
            "prompts": changes,
            "resources": {"subscribe": True, **changes},
            "logging": {},
            "completions": {},
            "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}},
        },
        "serverInfo": {"name": "conformance-fixture", "version": "1.0.0"},
    }


def ran(call, run, arguments):
    try:
        content = run(call, arguments)
    except Failure as failure:
        return {"content": [text(str(failure))], "isError": True}
    except RuntimeError as error:
        return {"content": [text(str(error))], "isError": True}
    return {"content": [text(content)] if isinstance(content, str) else content}


def call_tool(call, params):
    name, arguments = params.get("name"), params.get("arguments") or {}
    found = TOOLS.get(name)
    if not found:
        raise Failure(INVALID_PARAMS, f"no tool {name}")
    if (SUPPORT[name] or "forbidden") == ("forbidden" if "task" in params else "required"):
        raise Failure(METHOD_NOT_FOUND, f"{name} does not work like that")
    if FIRST[name]:
        arguments = {**arguments, "first": FIRST[name](call, arguments)}
    if "task" not in params:
        return ran(call, found[1], arguments)
    task = Task(call.session, call.message)
    # It is begun, and worked on when its client knows of it.
    work = threading.Timer(0.02, task.work, (found[1], arguments))
    work.daemon = True
    work.start()
    return {"task": task.shown()}


def read_resource(_call, params):
    uri = params.get("uri", "")
    before, after = TEMPLATE
    if uri.startswith(before) and uri.endswith(after):
        number = uri[len(before) : -len(after)]
        words = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": words}]}
    if uri not in RESOURCES:
        raise Failure(RESOURCE_NOT_FOUND, f"no resource {uri}", {"uri": uri})
    _, mime, words = RESOURCES[uri]
    return {"contents": [{"uri": uri, "mimeType": mime, **({"text": words} if words else {"blob": PNG})}]}


def get_prompt(call, params):
    found = PROMPTS.get(params.get("name"))
    if not found:
        raise Failure(INVALID_PARAMS, f"no prompt {params.get('name')}")
    return {"messages": found[1](call, params.get("arguments") or {})}


def set_level(call, params):
    if params.get("level") not in LEVELS:
        raise Failure(INVALID_PARAMS, f"no level {params.get('level')}")
    call.session.level = LEVELS.index(params["level"])
    return {}


def subscribe(call, params):
    call.session.subscribed.add(params.get("uri"))
    call.session.tell("notifications/resources/updated", {"uri": params.get("uri")})
    return {}


def unsubscribe(call, params):
    call.session.subscribed.discard(params.get("uri"))
    return {}


def list_prompts(_call, _params):
    def shown(name, arguments):
        described = [{"name": one, "description": one, "required": True} for one in arguments]
        return {"name": name, "description": name, **({"arguments": described} if described else {})}

    return {"prompts": [shown(name, arguments) for name, (arguments, _) in PROMPTS.items()]}


def list_resources(_call, _params):
    shown = [{"uri": uri, "name": name, "description": name, "mimeType": mime} for uri, (name, mime, _) in RESOURCES.items()]
    return {"resources": shown}


def list_templates(_call, _params):
    template = {"uriTemplate": "{id}".join(TEMPLATE), "name": "template", "description": "by id", "mimeType": "application/json"}
    return {"resourceTemplates": [template]}


METHODS = {
    "initialize": initialize,
    "ping": lambda _call, _params: {},
    "logging/setLevel": set_level,
    "tools/list": lambda _call, _params: {"tools": [shown for shown, _ in TOOLS.values()]},
    "tools/call": call_tool,
    **{method: about_task(method) for method in ("tasks/get", "tasks/result", "tasks/cancel")},
    "resources/list": list_resources,
    "resources/templates/list": list_templates,
    "resources/read": read_resource,
    "resources/subscribe": subscribe,
    "resources/unsubscribe": unsubscribe,
    "prompts/list": list_prompts,
    "prompts/get": get_prompt,
    "completion/complete": lambda _call, _params: {"completion": {"values": ["test"], "total": 1, "hasMore": False}},
}


# Valid JSON that nobody writes, and that does not survive being read into numbers and text and written again.
ODD = r'[ 1.50,1e2 , -0,12345678901234567890, "\u00e9\/\ud83d\ude00" , {"b":1,"a":[ ] } ]'


def oddly(message):
    """The line of a message as oddly as JSON allows, with a member nobody knows in its result, error or parameters."""
    message = dict(message)
    for name in ("result", "error", "params"):
        if isinstance(message.get(name), dict):
            message[name] = {**message[name], "x-odd": "<odd>"}
    return json.dumps(message, separators=(" , ", " : ")).replace('"<odd>"', ODD)


def serve_stdio(record):
    """Over stdio. With a file to record to, each line is written oddly, and kept there with what was read."""
    lock = threading.Lock()
    kept = open(record, "a", encoding="utf-8") if record else None

    def keep(direction, line):
        if kept:
            kept.write(f"{direction} {line}\n")
            kept.flush()

    def say(message, _of):
        line = oddly(message) if record else json.dumps(message, separators=(",", ":"))
        with lock:
            keep(">", line)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    session = Session(say)
    for line in sys.stdin:
        with lock:
            keep("<", line.rstrip("\n"))
        session.hear(json.loads(line))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--http"]:
        import conformance_http

        conformance_http.serve(int(sys.argv[2]))
    else:
        serve_stdio(sys.argv[2] if sys.argv[1:2] == ["--odd"] else None)
