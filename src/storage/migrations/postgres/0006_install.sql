-- How a package is installed. What was defined before there was an install step goes on as it was.
ALTER TABLE mcps ADD COLUMN install TEXT COLLATE "C" NOT NULL DEFAULT '{"step":"off"}';
