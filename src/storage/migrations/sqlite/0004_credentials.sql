-- Credential slots of a definition: JSON, like its other small parts.
ALTER TABLE mcps ADD COLUMN credentials TEXT NOT NULL DEFAULT '{}';

-- Values, each sealed for its place. The holder has no reference: `shared` values are the house's.
CREATE TABLE credentials (
    holder TEXT NOT NULL,
    mcp_id TEXT NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    sealed TEXT NOT NULL,
    version INTEGER NOT NULL,
    set_at INTEGER NOT NULL,
    set_by TEXT NOT NULL,
    PRIMARY KEY (holder, mcp_id, name)
) STRICT;
CREATE INDEX credentials_by_mcp ON credentials (mcp_id);
