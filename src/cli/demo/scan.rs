//! Searching bytes for known values.
