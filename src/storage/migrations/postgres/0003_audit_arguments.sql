-- What the audit log keeps of a call's arguments: JSON, like the definition's other small parts.
ALTER TABLE mcps ADD COLUMN audit_arguments TEXT COLLATE "C" NOT NULL DEFAULT '"digest"';
