//! The streams of changes that put registries on the queue.
