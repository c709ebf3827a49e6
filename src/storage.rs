//! One store for what must outlive the process; SQLite is the embedded default.
