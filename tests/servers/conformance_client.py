"""What the conformance suite starts as its client: it has a gateway speak to the suite's server. Its last argument is
that server's address; LEGATION, LEGATION_DATA_DIR and LEGATION_FACE say where the gateway is, MCP_CONFORMANCE_* what is
played. Plain Python 3."""

import json
import os
import subprocess
import sys
import urllib.request

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
FACE = os.environ["LEGATION_FACE"]
NAME = "s" + "".join(c for c in SCENARIO if c.isalnum())[:30] + str(os.getpid())


def cli(*words):
    ran = subprocess.run([os.environ["LEGATION"], "-o", "json", "--yes", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"legation {' '.join(words)}: {ran.stderr}")
    return json.loads(ran.stdout or "null")


cli("mcp", "add", NAME, "--url", sys.argv[-1], "--allow-private", "--ask", "sampling,elicitation,roots")
cli("mcp", "publish", NAME)
cli("group", "grant", "all", NAME)
cli("user", "add", NAME)
cli("group", "member", "add", "all", NAME)
KEY = cli("key", "create", NAME)["secret"]


class Client:
    """One of 2025-11-25, which answers what it is asked."""

    def __init__(self):
        self.session = None
        self.next = 0
        capabilities = {"elicitation": {}, "sampling": {}, "roots": {}}
        begun = self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": capabilities,
                                        "clientInfo": {"name": "driver", "version": "1"}})
        self.able = begun["capabilities"]
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).close()

    def post(self, message):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json",
                   "Accept": "application/json, text/event-stream"}
        if self.session:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": "2025-11-25"}
        request = urllib.request.Request(f"{FACE}/mcp/{NAME}", json.dumps(message).encode(), headers)
        answer = urllib.request.urlopen(request, timeout=25)  # noqa: S310
        self.session = self.session or answer.headers.get("Mcp-Session-Id")
        return answer

    def ask(self, method, params):
        self.next += 1
        with self.post({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params}) as answer:
            for line in answer:
                text = line.decode().removeprefix("data: ").strip()
                if not text.startswith("{"):
                    continue
                message = json.loads(text)
                if message.get("id") == self.next:
                    print(method, json.dumps(message)[:300], flush=True)
                    return message.get("result")
                if "method" in message and "id" in message:
                    self.post({"jsonrpc": "2.0", "id": message["id"], "result": self.answer(message)}).close()
        return None

    def answer(self, message):
        """As a client does that fills in what its user leaves out."""
        if message["method"] == "roots/list":
            return {"roots": []}
        if message["method"] == "sampling/createMessage":
            return {"role": "assistant", "model": "none", "content": {"type": "text", "text": "x"}}
        fields = message["params"].get("requestedSchema", {}).get("properties", {})
        usual = {"string": "x", "integer": 1, "number": 1.5, "boolean": True}
        content = {name: field.get("default", usual.get(field.get("type"))) for name, field in fields.items()}
        return {"action": "accept", "content": content}

    def call(self, name, arguments=None):
        return self.ask("tools/call", {"name": name, "arguments": arguments or {}})


client = Client()
tools = client.ask("tools/list", {})["tools"]
names = [tool["name"] for tool in tools]
if SCENARIO == "json-schema-2020-12-preservation":
    for tool in tools:
        if tool["name"] != "json_schema_echo":
            client.call("json_schema_echo", {"schema": tool["inputSchema"]})
elif CONTEXT.get("toolCalls"):
    for called in CONTEXT["toolCalls"]:
        client.call(called["name"], called["arguments"])
elif SCENARIO == "http-invalid-tool-headers":
    for name in names:
        client.call(name, {"region": "eu"})
elif SCENARIO == "tools_call":
    client.call("add_numbers", {"a": 5, "b": 3})
elif SCENARIO != "json-schema-ref-no-deref":
    for name in names:
        client.call(name)
if "resources" in client.able:
    for resource in client.ask("resources/list", {})["resources"]:
        client.ask("resources/read", {"uri": resource["uri"]})
if "prompts" in client.able:
    for prompt in client.ask("prompts/list", {})["prompts"]:
        client.ask("prompts/get", {"name": prompt["name"]})
