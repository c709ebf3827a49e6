"""An MCP server of 2025-11-25 with a shelf of resources and prompts: plain Python. Its first argument is its label; the
others say what it has (`resources`, `prompts`, `tools`, `completions`) and how it behaves: `late=N` answers lists after
N seconds, `slow=N` begins after N seconds, `pages` gives one item a page, `endless` never ends its pages, `many=N` has
that many resources, `tools=FILE` lists the tools named in a file, `dies` ends when it is asked for a list."""

import json
import sys
import time

label, words = sys.argv[1], sys.argv[2:]
options = dict(word.split("=", 1) for word in words if "=" in word)
resources = [
    {"uri": "file:///same", "name": "same", "x-of": label},
    {"uri": "memo:" + label, "name": "memo"},
]
resources += [{"uri": "many:%d" % n, "name": "m"} for n in range(int(options.get("many", 0)))]
templates = [{"uriTemplate": "file:///{name}", "name": "file", "x-of": label}]
prompts = [{"name": "who", "x-of": label}, {"name": "of." + label, "arguments": [{"name": "a"}]}]
watched = set()


def write(message):
    message["jsonrpc"] = "2.0"
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def has(what):
    return what in words or not any(w in words for w in ("resources", "prompts", "tools"))


def tools():
    names = ["link", "put", "touch", "retell", "watched"]
    if "tools" in options:
        with open(options["tools"]) as file:
            names += file.read().split()
    return [{"name": name, "inputSchema": {"type": "object"}} for name in names]


def page(member, items, params):
    time.sleep(float(options.get("late", 0)))
    if "dies" in words:
        sys.exit(3)
    if "endless" in words:
        return {member: items, "nextCursor": "more"}
    if "pages" not in words:
        return {member: items}
    at = int(params.get("cursor", 0))
    result = {member: items[at:at + 1]}
    if at + 1 < len(items):
        result["nextCursor"] = str(at + 1)
    return result


def call(name, arguments):
    if name == "link":
        return [
            {"type": "text", "text": "see file:///same"},
            {"type": "resource_link", "uri": "file:///same", "name": "same"},
            {"type": "resource", "resource": {"uri": "memo:" + label, "text": "of " + label}},
        ]
    said = ""
    if name == "put":
        resources.append({"uri": arguments["uri"], "name": "put"})
        write({"method": "notifications/resources/list_changed"})
    elif name == "touch":
        for uri in arguments["uris"]:
            if uri in watched:
                write({"method": "notifications/resources/updated", "params": {"uri": uri}})
    elif name == "retell":
        for what in arguments["of"]:
            write({"method": "notifications/%s/list_changed" % what})
    elif name == "watched":
        said = json.dumps(sorted(watched))
    else:
        said = "%s of %s" % (name, label)
    return [{"type": "text", "text": said}]


class NotThere(Exception):
    pass


def answer(method, params):
    if method == "initialize":
        time.sleep(float(options.get("slow", 0)))
        able = {"tools": {"listChanged": True}} if has("tools") else {}
        if has("resources"):
            able["resources"] = {"subscribe": True, "listChanged": True}
        if has("prompts"):
            able["prompts"] = {"listChanged": True}
            able["completions"] = {}
        return {"protocolVersion": "2025-11-25", "capabilities": able,
                "serverInfo": {"name": label, "version": "1"}}
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": tools()}
    if method == "tools/call":
        return {"content": call(params["name"], params.get("arguments", {}))}
    if method == "resources/list" and has("resources"):
        return page("resources", resources, params)
    if method == "resources/templates/list" and "untemplated" not in words:
        return page("resourceTemplates", templates, params)
    if method == "prompts/list" and has("prompts"):
        return page("prompts", prompts, params)
    if method == "resources/read":
        if params["uri"].startswith("nothing:"):
            raise NotThere()
        return {"contents": [{"uri": params["uri"], "text": "%s of %s" % (params["uri"], label)}]}
    if method == "prompts/get":
        text = "%s of %s" % (params["name"], label)
        link = {"type": "resource_link", "uri": "memo:" + label, "name": "memo"}
        return {"messages": [{"role": "user", "content": {"type": "text", "text": text}},
                             {"role": "user", "content": link}]}
    if method == "completion/complete":
        ref = params["ref"]
        return {"completion": {"values": ["%s of %s" % (ref.get("name") or ref["uri"], label)]}}
    if method == "resources/subscribe":
        watched.add(params["uri"])
        return {}
    if method == "resources/unsubscribe":
        watched.discard(params["uri"])
        return {}
    raise KeyError(method)


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    reply = {"id": message["id"]}
    try:
        reply["result"] = answer(message["method"], message.get("params") or {})
    except KeyError:
        reply["error"] = {"code": -32601, "message": "unknown"}
    except NotThere:
        reply["error"] = {"code": -32002, "message": "not there", "data": {"uri": message["params"]["uri"]}}
    write(reply)
