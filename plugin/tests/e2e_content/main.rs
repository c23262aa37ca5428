//! `kubectl registry` and the content of a real registry: lists without end, transfers that break off, other people's archives, full disks. No cluster is
//! needed for it: the registry is a process, and what the program reads of its manifest is given to it.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

mod bed;
mod broken_off;
mod full_disk;
mod lists;
mod others;
mod proxy;
