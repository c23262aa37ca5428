//! The process around the loop.
pub mod api_error;
pub mod client;
pub mod fence;
pub mod gate;
pub mod health;
pub mod leader;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
