-- When a named tool vanished: 0 while it is there, else the higher the later. The names of those that vanished first go.
ALTER TABLE exposed_tools ADD COLUMN gone BIGINT NOT NULL DEFAULT 0;
CREATE INDEX exposed_tools_by_mcp ON exposed_tools (mcp_id, tool);
