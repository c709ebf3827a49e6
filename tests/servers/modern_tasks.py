"""Tasks of 2026-07-28 (`io.modelcontextprotocol/tasks`) for modern.py: a tool that works as one is one for every client
that takes tasks. What it asks stands in `tasks/get`, and is answered with `tasks/update`."""

import threading
import time
import uuid

import conformance
from conformance import Failure

EXTENSION = "io.modelcontextprotocol/tasks"
CAPABILITY = -32021
TASKS = {}
# What runs a tool: modern.py's, which is the main module.
ran = None


def takes(call):
    return EXTENSION in (call.capabilities.get("extensions") or {})


def declared(call):
    if not takes(call):
        data = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise Failure(CAPABILITY, f"the client does not declare {EXTENSION}", data)


class Task:
    """A call that goes on when it is answered. For its tool it is a call like any other."""

    def __init__(self, call, run, arguments):
        self.call, self.run, self.arguments = call, run, arguments
        self.session = self
        self.token, self.level = None, None
        self.ident = str(uuid.uuid4())
        self.status, self.ended = "working", None
        self.made = self.now()
        self.requests, self.answers = {}, {}
        self.changed = threading.Condition()
        TASKS[self.ident] = self

    @staticmethod
    def now():
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def begun(self):
        threading.Thread(target=self.work, daemon=True).start()
        return {"resultType": "task", **self.shown()}

    def shown(self):
        return {"taskId": self.ident, "status": "working", "createdAt": self.made, "lastUpdatedAt": self.now(),
                "ttlMs": 600000, "pollIntervalMs": 200}

    def detailed(self):
        with self.changed:
            asked = {name: one for name, one in self.requests.items() if name not in self.answers}
            status = "input_required" if asked and self.status == "working" else self.status
            more = {"inputRequests": asked} if status == "input_required" else self.ended or {}
            return {**self.shown(), "status": status, **more}

    def ends(self, status, **ended):
        with self.changed:
            if self.status == "working":
                self.status, self.ended = status, ended
                self.changed.notify_all()

    def work(self):
        try:
            self.ends("completed", result=ran(self, self.run, self.arguments))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            words = f"{type(error).__name__}: {error}"
            self.ends("failed", error={"code": conformance.INTERNAL_ERROR, "message": words})

    # What a tool does with its call.

    def pause(self, seconds):
        with self.changed:
            self.changed.wait_for(lambda: self.status != "working", seconds)

    def progress(self, done, total=None):
        pass

    def log(self, level, data):
        pass

    def ask_all(self, *questions):
        with self.changed:
            names = [f"ask {len(self.requests) + at}" for at, _ in enumerate(questions)]
            for name, (method, params) in zip(names, questions):
                self.requests[name] = {"method": method, "params": params}
            self.changed.wait_for(lambda: self.status != "working" or all(name in self.answers for name in names))
            if self.status != "working":
                raise RuntimeError("nobody wants it any more")
            return [self.answers[name] for name in names]

    def ask(self, method, params):
        return self.ask_all((method, params))[0]


def about(method):
    def handler(call, params):
        declared(call)
        task = TASKS.get(params.get("taskId"))
        if not task:
            raise Failure(conformance.INVALID_PARAMS, f"no task {params.get('taskId')}")
        if method == "tasks/get":
            return task.detailed()
        if method == "tasks/cancel":
            task.ends("cancelled")
        else:
            with task.changed:
                asked = {name: one for name, one in params["inputResponses"].items() if name in task.requests}
                task.answers.update({name: one for name, one in asked.items() if name not in task.answers})
                task.changed.notify_all()
        return {}

    return handler


METHODS = {method: about(method) for method in ("tasks/get", "tasks/update", "tasks/cancel")}
