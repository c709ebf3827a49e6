// A real MCP client that does what it is told: a JSON line in, a JSON line out, until its stdin ends.
// Arguments: directory of its packages, version of the TypeScript SDK (1, 2), mode (legacy, auto, sse), url, key.
//
// What it hears of changed lists is counted; what it is asked it answers: yes to what can be yes, `Ada` to the rest.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [home, version, mode, url, key] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${home}/`));
const v1 = version === "1";
const sdk = v1
  ? {
      ...require("@modelcontextprotocol/sdk/client/index.js"),
      ...require("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      ...require("@modelcontextprotocol/sdk/client/sse.js"),
      ...require("@modelcontextprotocol/sdk/types.js"),
    }
  : require("@modelcontextprotocol/client");

const filled = (schema) =>
  Object.fromEntries(
    Object.entries(schema.properties ?? {}).map(([name, one]) => [name, one.type === "boolean" ? true : "Ada"]),
  );

let changes = 0;
const Transport = mode === "sse" ? sdk.SSEClientTransport : sdk.StreamableHTTPClientTransport;
const transport = new Transport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${key}` } },
});
const client = new sdk.Client(
  { name: `typescript ${version}`, version: "1" },
  {
    capabilities: { elicitation: {} },
    listChanged: { tools: { autoRefresh: false, debounceMs: 0, onChanged: () => (changes += 1) } },
    ...(v1 ? {} : { versionNegotiation: { mode } }),
  },
);
const elicit = async ({ params }) => ({ action: "accept", content: filled(params.requestedSchema) });
client.setRequestHandler(v1 ? sdk.ElicitRequestSchema : "elicitation/create", elicit);
client.onerror = () => {};

const call = async ({ tool, arguments: given = {} }, options = {}) => {
  const heard = [];
  const all = { onprogress: ({ progress }) => heard.push(progress), ...options };
  const params = { name: tool, arguments: given };
  const answer = await (v1 ? client.callTool(params, undefined, all) : client.callTool(params, all));
  return { text: answer.content[0].text, progress: heard };
};

const deeds = {
  list: async () => ({ tools: (await client.listTools()).tools.map((tool) => tool.name) }),
  call,
  cancel: async (told) => {
    const stop = new AbortController();
    setTimeout(() => stop.abort("enough"), told.after_ms);
    return call(told, { signal: stop.signal }).then(
      (answered) => ({ answered }),
      (error) => (String(error).includes("enough") ? { cancelled: true } : { error: String(error) }),
    );
  },
  changed: async () => ({ changes }),
};

await client.connect(transport);
const spoken = v1 ? (transport.protocolVersion ?? transport._protocolVersion) : client.getNegotiatedProtocolVersion();
console.log(JSON.stringify({ version: spoken }));
for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  const answer = await deeds[told.do](told).catch((error) => ({ error: String(error) }));
  console.log(JSON.stringify(answer));
}
await client.close();
