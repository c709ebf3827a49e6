//! MCP on the wire: the JSON-RPC envelope, stdio framing and the downstream handshake.
