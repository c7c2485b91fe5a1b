//! Tests that run the real binary live in `tests/`.
