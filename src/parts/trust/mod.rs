//! Who else is told which authorities to trust: copies of the bundle in other namespaces, one for pods of all of them, and orders to the agents on nodes. Both follow what is published in
//! the registry's own namespace, never what is only intended. What is wanted is said here, and written by [`super::elsewhere`].

pub(super) mod cluster;
pub(super) mod namespaces;
pub(super) mod nodes;
pub(crate) mod proofs;
pub mod reports;

use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;

use crate::status::Problem;

/// Hands over every object that a list shows, page by page.
async fn each<K>(api: &Api<K>, mut params: ListParams, mut take: impl FnMut(K)) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    loop {
        let page = api.list(&params).await?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

/// What is said where clients need no bundle.
fn nothing_to_trust(field: &str) -> Problem {
    let why = format!(
        "clients of this registry need no bundle, so nobody is to be told: it has none with plain HTTP, nor with a certificate of your own without ca.crt; remove {field}"
    );
    Problem::stuck("NothingToTrust", why)
}
