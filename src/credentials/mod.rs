//! Users of a registry: password hashes, the htpasswd file, the generated admin.
