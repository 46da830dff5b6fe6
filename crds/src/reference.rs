//! Reference pages.
