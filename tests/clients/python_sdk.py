"""The MCP client of the Python SDK, as its users write it: lists, calls, hears of progress, and says in
JSON what it saw. Arguments: url, key, mode (legacy or auto)."""

import asyncio
import json
import sys

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def main(url: str, key: str, mode: str) -> None:
    http = create_mcp_http_client(headers={"Authorization": f"Bearer {key}"})
    transport = streamable_http_client(url, http_client=http)
    heard: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with Client(transport, mode=mode) as client:
        tools = (await client.list_tools()).tools
        echo = await client.call_tool("echo", {"message": "häh?"})
        long = await client.call_tool(
            "trigger-long-running-operation",
            {"duration": 0.3, "steps": 3},
            progress_callback=on_progress,
        )
        try:
            unknown = (await client.call_tool("no-such-tool", {})).content[0].text
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            unknown = f"{type(error).__name__}: {error}"
        print(
            json.dumps(
                {
                    "version": client.session.protocol_version,
                    "tools": [tool.name for tool in tools],
                    "echo": echo.content[0].text,
                    "long": long.content[0].text,
                    "progress": heard,
                    "unknown": unknown,
                }
            )
        )


asyncio.run(main(*sys.argv[1:]))
