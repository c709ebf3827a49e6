"""A real MCP client that does what it is told: a JSON line in, a JSON line out, until its stdin ends.
Arguments: whose client (sdk, fastmcp), mode (legacy, auto, sse), url, key.

What it hears of changed lists is counted; what it is asked it answers: yes to what can be yes, `Ada` to the rest."""

import asyncio
import json
import sys

from mcp.client.subscriptions import listen


def filled(schema: dict) -> dict:
    kinds = {name: one.get("type") for name, one in schema.get("properties", {}).items()}
    return {name: True if kind == "boolean" else "Ada" for name, kind in kinds.items()}


class Driven:
    def __init__(self) -> None:
        self.changes = 0
        self.client = None

    async def hear(self, message) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            self.changes += 1

    async def list(self, _) -> dict:
        tools = await self.client.list_tools()
        return {"tools": [tool.name for tool in getattr(tools, "tools", tools)]}

    async def call(self, told) -> dict:
        heard: list[float] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            heard.append(progress)

        answer = await self.call_tool(told["tool"], told.get("arguments", {}), on_progress)
        return {"text": answer.content[0].text, "progress": heard}

    async def cancel(self, told) -> dict:
        task = asyncio.ensure_future(self.call(told))
        await asyncio.sleep(told["after_ms"] / 1000)
        task.cancel()
        try:
            return {"answered": await task}
        except asyncio.CancelledError:
            return {"cancelled": True}

    async def changed(self, _) -> dict:
        return {"changes": self.changes}

    async def follow(self, session) -> None:
        """Clients of the newer version ask for news; those of the older ones hear them unasked."""
        async with listen(session, tools_list_changed=True) as news:
            async for _ in news:
                self.changes += 1

    async def run(self, session) -> None:
        follows = self.version() == "2026-07-28"
        following = asyncio.ensure_future(self.follow(session)) if follows else None
        print(json.dumps({"version": self.version()}), flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            told = json.loads(line)
            try:
                answer = await getattr(self, told["do"])(told)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
        if following:
            following.cancel()


class Sdk(Driven):
    def version(self) -> str:
        return self.client.session.protocol_version

    async def call_tool(self, tool, arguments, on_progress):
        return await self.client.call_tool(tool, arguments, progress_callback=on_progress)

    async def elicit(self, _context, params):
        from mcp_types import ElicitResult

        return ElicitResult(action="accept", content=filled(params.requested_schema))

    async def connect(self, mode: str, url: str, key: str) -> None:
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        headers = {"Authorization": f"Bearer {key}"}
        if mode == "sse":
            from mcp.client.sse import sse_client

            transport, mode = sse_client(url, headers=headers), "legacy"
        else:
            transport = streamable_http_client(url, http_client=create_mcp_http_client(headers=headers))
        asks = {"elicitation_callback": self.elicit, "message_handler": self.hear}
        async with Client(transport, mode=mode, **asks) as self.client:
            await self.run(self.client.session)


class FastMcp(Driven):
    def version(self) -> str:
        return self.client.protocol_version

    async def call_tool(self, tool, arguments, on_progress):
        return await self.client.call_tool_mcp(tool, arguments, progress_handler=on_progress)

    async def elicit(self, _message, _type, params, _context):
        return filled(params.requested_schema)

    async def connect(self, mode: str, url: str, key: str) -> None:
        from fastmcp import Client

        asks = {"elicitation_handler": self.elicit, "message_handler": self.hear}
        async with Client(url, auth=key, mode=mode, **asks) as self.client:
            await self.run(self.client.session)


if __name__ == "__main__":
    whose, *rest = sys.argv[1:]
    asyncio.run({"sdk": Sdk, "fastmcp": FastMcp}[whose]().connect(*rest))
