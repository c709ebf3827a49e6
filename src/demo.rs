//! The bundled demo MCP: a real stdio server behind a hidden subcommand.
