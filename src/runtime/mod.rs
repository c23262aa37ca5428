//! The process around the loop.
pub mod api_error;
pub mod client;
pub mod fence;
pub mod gate;
pub mod settings;
