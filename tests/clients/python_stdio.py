"""The stdio MCP client of the Python SDK in front of `legation bridge`: lists, calls, hears of progress, and
says in JSON what it saw. Arguments: mode (legacy or auto), the program, its arguments. The bridge takes its
address and key from the environment."""

import asyncio
import json
import os
import sys

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client


async def main(mode: str, program: str, *arguments: str) -> None:
    names = ("LEGATION_URL", "LEGATION_KEY", "HOME", "PATH")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    transport = stdio_client(StdioServerParameters(command=program, args=list(arguments), env=environment))
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
        print(
            json.dumps(
                {
                    "version": client.session.protocol_version,
                    "tools": [tool.name for tool in tools],
                    "echo": echo.content[0].text,
                    "long": long.content[0].text,
                    "progress": heard,
                }
            )
        )


asyncio.run(main(*sys.argv[1:]))
