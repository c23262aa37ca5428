//! Who is looked at next, and why: names on a queue, streams of changes that put them there, the wait after a failure, rounds over all of them.
//!
//! Generic over what is worked on and what a pass does; it never writes to the cluster, events aside.
//!
//! | module | what it holds |
//! |---|---|
//! | [`watches`] | one stream per kind and scope, each with its own trouble |
//! | [`followed`] | what the API server shows, read with care |
//! | [`store`] | the objects that are worked on, as the API server last showed them |
//! | [`queue`] | names that wait for a pass, and the workers that take them |
//! | [`backoff`] | how long a name waits |
//! | [`rounds`] | every name once: after a start, and in the slow sweep |
//! | [`references`] | who refers to what, both ways |
//! | [`installations`] | of several installations, which one works on an object |
//! | [`events`] | what `kubectl describe` tells |

pub mod backoff;
pub mod events;
pub mod followed;
pub mod installations;
pub mod queue;
pub mod references;
pub mod rounds;
pub mod store;
pub mod watches;
