-- Who, what and what ties them together: the same as SQLite's, table by table, column by column (a
-- test compares the two in live databases). Texts are compared byte by byte, as there.

CREATE TABLE settings (
    name TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE users (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE user_groups (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE members (
    group_id TEXT COLLATE "C" NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE client_keys (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    label TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL UNIQUE,
    pepper_id BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX client_keys_by_user ON client_keys (user_id);

CREATE TABLE mcps (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('draft', 'published', 'archived')),
    sharing TEXT COLLATE "C" NOT NULL,
    program TEXT COLLATE "C" NOT NULL,
    limits TEXT COLLATE "C" NOT NULL,
    times TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
-- An archived definition is kept for its history and gives its name back.
CREATE UNIQUE INDEX mcps_by_live_name ON mcps (name) WHERE state <> 'archived';

CREATE TABLE grants (
    group_id TEXT COLLATE "C" NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    mcp_id TEXT COLLATE "C" NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, mcp_id)
);
CREATE INDEX grants_by_mcp ON grants (mcp_id);

CREATE TABLE tools (
    mcp_id TEXT COLLATE "C" NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    name TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    definition TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (mcp_id, name)
);

CREATE TABLE subscriptions (
    key_id TEXT COLLATE "C" NOT NULL REFERENCES client_keys (id) ON DELETE CASCADE,
    mcp_id TEXT COLLATE "C" NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (key_id, mcp_id)
);
CREATE INDEX subscriptions_by_mcp ON subscriptions (mcp_id);

-- No reference to tools: a tool that vanishes and comes back keeps the name clients know.
CREATE TABLE exposed_tools (
    key_id TEXT COLLATE "C" NOT NULL,
    mcp_id TEXT COLLATE "C" NOT NULL,
    tool TEXT COLLATE "C" NOT NULL,
    exposed TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (key_id, mcp_id, tool),
    UNIQUE (key_id, exposed),
    FOREIGN KEY (key_id, mcp_id) REFERENCES subscriptions (key_id, mcp_id) ON DELETE CASCADE
);

CREATE TABLE sessions (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL REFERENCES client_keys (id) ON DELETE CASCADE,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    connection_id TEXT COLLATE "C" NOT NULL,
    friendly_name TEXT COLLATE "C" NOT NULL,
    host_tool TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_key ON sessions (key_id);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- The target has no reference: the history outlives what was suspended.
CREATE TABLE suspensions (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    scope TEXT COLLATE "C" NOT NULL CHECK (scope IN ('user', 'mcp')),
    target TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    lifted_at BIGINT
);
CREATE UNIQUE INDEX suspensions_active ON suspensions (scope, target) WHERE lifted_at IS NULL;
CREATE INDEX suspensions_by_time ON suspensions (created_at);
