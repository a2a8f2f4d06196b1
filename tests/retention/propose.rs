//! A policy that shortens something.
