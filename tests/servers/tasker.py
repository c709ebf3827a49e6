"""An MCP server of 2025-11-25 whose tools work as tasks: plain Python, one thread for each task.

--eager  answers `tasks/result` at once, with an error, while the task goes on
--rare   wants to be asked once in a minute
--odd    names its tasks with what has to be escaped
--same   gives all of them one name
--bare   cannot be told to stop
"""

import json
import os
import queue
import sys
import threading
import time

OPTIONS = set(sys.argv[1:])
RELATED = "io.modelcontextprotocol/related-task"
lock = threading.Lock()
tasks = {}
answers = {}
seen = []
state = {"next": 0}


def write(message):
    message["jsonrpc"] = "2.0"
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def notify(method, params):
    write({"method": method, "params": params})


class Task:
    def __init__(self, number, ttl):
        odd = "n \"%d\"\\\u00e9/../\n" % number if "--odd" in OPTIONS else "task-%d" % number
        self.ident = "same" if "--same" in OPTIONS else odd
        self.status, self.message, self.ttl = "working", "begun", ttl
        self.done = threading.Event()
        self.answer = None

    def shown(self):
        return {"taskId": self.ident, "status": self.status, "statusMessage": self.message, "ttl": self.ttl,
                "createdAt": "2025-11-25T10:30:00Z", "lastUpdatedAt": "2025-11-25T10:30:00Z", "pollInterval": 60000 if "--rare" in OPTIONS else 100}

    def stands(self, status, message):
        if not self.done.is_set():
            self.status, self.message = status, message
            notify("notifications/tasks/status", self.shown())

    def ends(self, status, answer):
        if not self.done.is_set():
            self.status, self.answer = status, answer
            self.done.set()


def elicit(task, name):
    with lock:
        state["next"] += 1
        ident = "own-%d" % state["next"]
        answers[ident] = queue.Queue()
    params = {"message": name + "?", "task": {"ttl": 1}, "requestedSchema": {
        "type": "object", "properties": {"name": {"type": "string"}}}}
    if task:
        params["_meta"] = {RELATED: {"taskId": task.ident}}
        task.stands("input_required", "it asks")
    write({"id": ident, "method": "elicitation/create", "params": params})
    said = answers[ident].get()
    if task:
        task.stands("working", "it was told")
    return said.get("result") or {"error": said["error"]}


def text(what):
    return {"content": [{"type": "text", "text": what}], "_meta": {"own": 1}}


def work(name, arguments, meta, task):
    """What a tool does; its result, or an error."""
    token = meta.get("progressToken")
    if name == "seen":
        return text(json.dumps(seen))
    if name == "asks":
        return text(json.dumps([elicit(task, one) for one in arguments["names"]]))
    if name == "crash":
        time.sleep(arguments.get("ms", 300) / 1000)
        os.write(2, b"the last words\n")
        os._exit(7)
    steps = arguments.get("steps", 1)
    for step in range(steps):
        time.sleep(arguments.get("ms", 10) / 1000 / steps)
        if token is not None:
            notify("notifications/progress", {"progressToken": token, "progress": step + 1})
        if task:
            task.stands("working", "step %d" % (step + 1))
            notify("notifications/message", {"level": "info", "data": "step",
                                             "_meta": {RELATED: {"taskId": task.ident}}})
        if task and task.done.is_set():
            return text("nobody wants it")
    if name == "fails":
        return dict(text("it failed"), isError=True)
    if name == "errs":
        return {"code": -32050, "message": "out of luck"}
    return text(arguments.get("text", "done"))


def answered(ident, outcome, task=None):
    if "code" in outcome:
        write({"id": ident, "error": outcome})
    else:
        if task:
            outcome = dict(outcome, _meta=dict(outcome.get("_meta", {}), **{RELATED: {"taskId": task.ident}}))
        write({"id": ident, "result": outcome})


def run(task, name, arguments, meta):
    outcome = work(name, arguments, meta, task)
    failed = "code" in outcome or outcome.get("isError")
    task.ends("failed" if failed else "completed", outcome)


def call(message):
    params = message["params"]
    name, arguments = params["name"], params.get("arguments", {})
    support = TOOLS[name].get("execution", {}).get("taskSupport", "forbidden")
    wanted = params.get("task")
    if wanted is None and support == "required" or wanted is not None and support == "forbidden":
        write({"id": message["id"], "error": {"code": -32601, "message": "not like that"}})
        return
    meta = params.get("_meta", {})
    if wanted is None:
        answered(message["id"], work(name, arguments, meta, None))
        return
    with lock:
        state["next"] += 1
        task = Task(state["next"], wanted.get("ttl"))
        tasks[task.ident] = task
    immediate = {"io.modelcontextprotocol/model-immediate-response": "wait for it"}
    write({"id": message["id"], "result": {"task": task.shown(), "_meta": immediate}})
    run(task, name, arguments, meta)


def result(message, task):
    if "--eager" in OPTIONS and not task.done.is_set():
        write({"id": message["id"], "error": {"code": -32602, "message": "it has not ended"}})
        return
    task.done.wait()
    answered(message["id"], task.answer, task)


def about(message, method):
    task = tasks.get(message["params"]["taskId"])
    if task is None:
        write({"id": message["id"], "error": {"code": -32602, "message": "no such task"}})
    elif method == "tasks/get":
        write({"id": message["id"], "result": task.shown()})
    elif method == "tasks/cancel":
        task.ends("cancelled", {"code": -32603, "message": "cancelled"})
        write({"id": message["id"], "result": task.shown()})
    else:
        threading.Thread(target=result, args=(message, task), daemon=True).start()


def tool(name, support=None):
    tool = {"name": name, "inputSchema": {"type": "object"}}
    if support:
        tool["execution"] = {"taskSupport": support}
    return tool


TOOLS = {one["name"]: one for one in [
    tool("slow", "optional"), tool("must", "required"), tool("plain"), tool("seen"), tool("asks", "optional"),
    tool("crash", "optional"), tool("fails", "optional"), tool("errs", "optional"), tool("never", "forbidden")]}
CAPABILITY = {"list": {}, "requests": {"tools": {"call": {}}}}
if "--bare" not in OPTIONS:
    CAPABILITY["cancel"] = {}

for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method is None:
        with lock:
            waits = answers.get(message["id"])
        if waits:
            waits.put(message)
        continue
    seen.append(method)
    if method == "initialize":
        write({"id": message["id"], "result": {
            "protocolVersion": "2025-11-25", "serverInfo": {"name": "tasker", "version": "1"},
            "capabilities": {"tools": {}, "logging": {}, "tasks": CAPABILITY}}})
    elif method == "tools/list":
        write({"id": message["id"], "result": {"tools": list(TOOLS.values())}})
    elif method == "tools/call":
        threading.Thread(target=call, args=(message,), daemon=True).start()
    elif method.startswith("tasks/"):
        about(message, method)
    elif "id" in message:
        write({"id": message["id"], "result": {}})
