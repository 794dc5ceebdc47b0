//! Promises about whole descriptions.
