//! The protocols that the firmware installs on handles of its own, as values: what an image asks for, and with which status it
//! is refused. The firmware binary has the functions that images call, which turn pointers into values.

pub mod text_input;
pub mod text_output;
