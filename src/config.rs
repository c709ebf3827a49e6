//! Configuration: file, environment, flags; every value knows its origin.
