//! Near and far: what is asked of a log is the same over a connection.
