-- What a definition says about the walls around its isolates; nothing is the thickest walls.
ALTER TABLE mcps ADD COLUMN confinement TEXT COLLATE "C" NOT NULL DEFAULT '{}';
