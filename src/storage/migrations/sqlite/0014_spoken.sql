-- Which era of MCP the servers of a definition speak, as it was found out.
ALTER TABLE mcps ADD COLUMN spoken TEXT NOT NULL DEFAULT '';
