-- What passes between a server and its clients beside answers.
ALTER TABLE mcps ADD COLUMN talk TEXT NOT NULL DEFAULT '{}';
