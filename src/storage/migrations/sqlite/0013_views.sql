-- What a server said that it can do, when it was started from this definition the last time.
CREATE TABLE abilities (
    mcp_id TEXT PRIMARY KEY NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    config TEXT NOT NULL,
    abilities TEXT NOT NULL
) STRICT;

-- The names under which a key sees prompts where all its servers are: fixed when they are listed first.
CREATE TABLE exposed_prompts (
    key_id TEXT NOT NULL,
    mcp_id TEXT NOT NULL,
    prompt TEXT NOT NULL,
    exposed TEXT NOT NULL,
    PRIMARY KEY (key_id, mcp_id, prompt),
    UNIQUE (key_id, exposed),
    FOREIGN KEY (key_id, mcp_id) REFERENCES subscriptions (key_id, mcp_id) ON DELETE CASCADE
) STRICT;
