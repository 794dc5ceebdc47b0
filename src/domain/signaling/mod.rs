//! Text to message and back.
