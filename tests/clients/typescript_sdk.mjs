// The MCP client of the TypeScript SDK (version 1), as its users write it: lists, calls, hears of
// progress, cancels, and says in JSON what it saw. Arguments: directory of its package, url, key.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [home, url, key] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${home}/`));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${key}` } },
});
const client = new Client({ name: "typescript", version: "1" });
await client.connect(transport);
const tools = (await client.listTools()).tools;
const echo = await client.callTool({ name: "echo", arguments: { message: "häh?" } });
const heard = [];
const long = await client.callTool(
  { name: "trigger-long-running-operation", arguments: { duration: 0.3, steps: 3 } },
  undefined,
  { onprogress: (progress) => heard.push(progress.progress) },
);
const stop = new AbortController();
const cancelled = client
  .callTool(
    { name: "trigger-long-running-operation", arguments: { duration: 600, steps: 3 } },
    undefined,
    { signal: stop.signal },
  )
  .then(() => "answered", (error) => String(error.message));
setTimeout(() => stop.abort("enough"), 200);
console.log(
  JSON.stringify({
    session: typeof transport.sessionId,
    tools: tools.map((tool) => tool.name),
    echo: echo.content[0].text,
    long: long.content[0].text,
    progress: heard,
    cancelled: await cancelled,
  }),
);
await transport.terminateSession();
await client.close();
