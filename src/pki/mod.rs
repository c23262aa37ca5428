//! Certificates: when to renew, how to issue, what to accept.
