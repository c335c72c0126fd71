//! Firstlight's host tool.
fn main() {}
