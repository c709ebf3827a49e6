-- What a server said that it can do, when it was started from this definition the last time.
CREATE TABLE abilities (
    mcp_id TEXT COLLATE "C" PRIMARY KEY NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    config TEXT COLLATE "C" NOT NULL,
    abilities TEXT COLLATE "C" NOT NULL
);

-- The names under which a key sees prompts where all its servers are: fixed when they are listed first.
CREATE TABLE exposed_prompts (
    key_id TEXT COLLATE "C" NOT NULL,
    mcp_id TEXT COLLATE "C" NOT NULL,
    prompt TEXT COLLATE "C" NOT NULL,
    exposed TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (key_id, mcp_id, prompt),
    UNIQUE (key_id, exposed),
    FOREIGN KEY (key_id, mcp_id) REFERENCES subscriptions (key_id, mcp_id) ON DELETE CASCADE
);
