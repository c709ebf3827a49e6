-- Kill switches and suspensions. The target has no reference: a deny may come before what it
-- denies, and its history outlives it. `label` is what people called the target then.
CREATE TABLE denies (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('kill_switch', 'suspension')),
    scope TEXT COLLATE "C" NOT NULL CHECK (scope IN ('tool', 'mcp', 'user', 'client', 'all')),
    target TEXT COLLATE "C" NOT NULL,
    label TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    lifted_at BIGINT,
    lifted_by TEXT COLLATE "C",
    lifted_how TEXT COLLATE "C"
);
CREATE UNIQUE INDEX denies_active ON denies (kind, scope, target) WHERE lifted_at IS NULL;
CREATE INDEX denies_by_time ON denies (created_at);
CREATE INDEX denies_by_end ON denies (lifted_at);

-- A suspended mcp is what a kill switch of its scope is now.
INSERT INTO denies (id, kind, scope, target, label, reason, author, created_at, expires_at,
    lifted_at, lifted_by, lifted_how)
SELECT 'deny_' || substr(s.id, 5),
    CASE s.scope WHEN 'user' THEN 'suspension' ELSE 'kill_switch' END,
    s.scope, s.target, COALESCE(u.name, m.name, s.target),
    CASE s.reason WHEN '' THEN 'no reason given' ELSE s.reason END,
    s.author, s.created_at, NULL, s.lifted_at,
    CASE WHEN s.lifted_at IS NULL THEN NULL ELSE 'not recorded' END,
    CASE WHEN s.lifted_at IS NULL THEN NULL ELSE 'lifted' END
FROM suspensions s
LEFT JOIN users u ON u.id = s.target
LEFT JOIN mcps m ON m.id = s.target;

DROP TABLE suspensions;
