//! A real Kubernetes from nothing.
