//! The listeners: the standard client on the client port, the admins on a Unix socket.
