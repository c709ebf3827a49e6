-- Credential slots of a definition: JSON, like its other small parts.
ALTER TABLE mcps ADD COLUMN credentials TEXT COLLATE "C" NOT NULL DEFAULT '{}';

-- Values, each sealed for its place. The holder has no reference: `shared` values are the house's.
CREATE TABLE credentials (
    holder TEXT COLLATE "C" NOT NULL,
    mcp_id TEXT COLLATE "C" NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    sealed TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    set_at BIGINT NOT NULL,
    set_by TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (holder, mcp_id, name)
);
CREATE INDEX credentials_by_mcp ON credentials (mcp_id);
