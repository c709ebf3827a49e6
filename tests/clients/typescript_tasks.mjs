// The MCP client of the TypeScript SDK (version 1) with its experimental tasks: calls that it comes back for, one that
// asks, one that it cancels; says in JSON what it saw. Arguments: directory of its package, url, key.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [home, url, key] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${home}/`));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { CallToolResultSchema, ElicitRequestSchema } = require("@modelcontextprotocol/sdk/types.js");

const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${key}` } },
});
const client = new Client({ name: "typescript", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { name: "Ada" } }));
await client.connect(transport);
await client.listTools();
const tasks = client.experimental.tasks;

const streamed = async (name, given) => {
  const kinds = [];
  let progress = 0;
  const options = { task: { ttl: 60000 }, onprogress: () => (progress += 1) };
  for await (const message of tasks.callToolStream({ name, arguments: given }, CallToolResultSchema, options)) {
    kinds.push(message.type);
    if (message.type === "error") throw message.error;
    if (message.type === "result") return { kinds, progress, result: message.result.content[0].text };
  }
};

const slow = await streamed("slow", { ms: 1000, steps: 5, text: "streamed" });
const asks = await streamed("asks", { names: ["who"] });
const must = await client.callTool({ name: "must", arguments: { text: "plainly" } });
let cancelled;
const options = { task: { ttl: 60000 } };
const endless = { name: "slow", arguments: { ms: 60000 } };
for await (const message of tasks.callToolStream(endless, CallToolResultSchema, options)) {
  if (message.type === "taskCreated") {
    cancelled = (await tasks.cancelTask(message.task.taskId)).status;
    break;
  }
}
const unknown = await tasks.getTask("nobody's").catch((error) => String(error));
const listed = (await tasks.listTasks()).tasks.length;
console.log(JSON.stringify({ slow, asks, must: must.content[0].text, cancelled, unknown, listed }));
await transport.terminateSession();
await client.close();
