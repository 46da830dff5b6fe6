//! (being written)

pub mod user_data;
