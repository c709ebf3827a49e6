-- Who, what and what ties them together. Ids are TEXT, times are milliseconds since the epoch,
-- lists and records nobody searches in are JSON as TEXT.

CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE user_groups (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    group_id TEXT NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
) STRICT;
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE client_keys (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    prefix TEXT NOT NULL UNIQUE,
    pepper_id INTEGER NOT NULL,
    digest TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX client_keys_by_user ON client_keys (user_id);

CREATE TABLE mcps (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('draft', 'published', 'archived')),
    sharing TEXT NOT NULL,
    program TEXT NOT NULL,
    limits TEXT NOT NULL,
    times TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
-- An archived definition is kept for its history and gives its name back.
CREATE UNIQUE INDEX mcps_by_live_name ON mcps (name) WHERE state <> 'archived';

CREATE TABLE grants (
    group_id TEXT NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    mcp_id TEXT NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, mcp_id)
) STRICT;
CREATE INDEX grants_by_mcp ON grants (mcp_id);

CREATE TABLE tools (
    mcp_id TEXT NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    place INTEGER NOT NULL,
    description TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (mcp_id, name)
) STRICT;

CREATE TABLE subscriptions (
    key_id TEXT NOT NULL REFERENCES client_keys (id) ON DELETE CASCADE,
    mcp_id TEXT NOT NULL REFERENCES mcps (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (key_id, mcp_id)
) STRICT;
CREATE INDEX subscriptions_by_mcp ON subscriptions (mcp_id);

-- No reference to tools: a tool that vanishes and comes back keeps the name clients know.
CREATE TABLE exposed_tools (
    key_id TEXT NOT NULL,
    mcp_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    exposed TEXT NOT NULL,
    PRIMARY KEY (key_id, mcp_id, tool),
    UNIQUE (key_id, exposed),
    FOREIGN KEY (key_id, mcp_id) REFERENCES subscriptions (key_id, mcp_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    key_id TEXT NOT NULL REFERENCES client_keys (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    connection_id TEXT NOT NULL,
    friendly_name TEXT NOT NULL,
    host_tool TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_key ON sessions (key_id);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- The target has no reference: the history outlives what was suspended.
CREATE TABLE suspensions (
    id TEXT PRIMARY KEY NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('user', 'mcp')),
    target TEXT NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    lifted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX suspensions_active ON suspensions (scope, target) WHERE lifted_at IS NULL;
CREATE INDEX suspensions_by_time ON suspensions (created_at);
