-- What passes between a server and its clients beside answers.
ALTER TABLE mcps ADD COLUMN talk TEXT COLLATE "C" NOT NULL DEFAULT '{}';
-- What a session's client can answer when a server asks.
ALTER TABLE sessions ADD COLUMN questions TEXT COLLATE "C" NOT NULL DEFAULT '[]';
