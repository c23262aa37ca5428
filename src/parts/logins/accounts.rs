//! Tokens of ServiceAccounts that pods pull with. Each is asked of the cluster, kept in a pull Secret of the account's namespace, and renewed at half of its
//! life. Whoever rules that namespace lets the operator ask, and can make each answer late: so it is asked where copies are written, in turns.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use super::super::elsewhere::Place;
use super::super::{Error, Pass};
use crate::access::account::{Account, AccountToken};
use crate::credentials::docker_config::{docker_config, password_in};
use crate::desired::{Object, kinds, pull_copy, secrets};

/// What clients call themselves: the cluster says who they are, by the token.
const USERNAME: &str = "serviceaccount";

/// A pull Secret with a token.
#[derive(Clone)]
pub(in crate::parts) struct AccountSecret {
    pub(in crate::parts) account: Account,
    name: String,
    /// What its pods may call the registry.
    hosts: Arc<BTreeSet<String>>,
}

impl AccountSecret {
    pub(super) fn new(account: Account, name: String, hosts: &Arc<BTreeSet<String>>) -> Self {
        Self { account, name, hosts: Arc::clone(hosts) }
    }

    /// Where it is.
    pub(in crate::parts) fn place(&self) -> Place {
        (self.account.namespace.clone(), kinds::SECRET, self.name.clone())
    }

    /// The Secret with this token.
    pub(in crate::parts) fn object(&self, pass: &Pass<'_>, token: &AccountToken) -> Object {
        let login = docker_config(&self.hosts, USERNAME, token.text.expose());
        let namespace = &self.account.namespace;
        if *namespace == pass.registry.namespace {
            let object = secrets::pull(pass.registry, &self.name, &login);
            Object { namespace: Some(namespace.clone()), ..object }
        } else {
            pull_copy::build(pass.registry, namespace, &login)
        }
    }

    /// The token that it holds, unless it is time for the next, which is asked for: then also when that was.
    ///
    /// # Errors
    /// The Secret could not be read, or the cluster gives no token.
    pub(in crate::parts) async fn token(&self, pass: &Pass<'_>) -> Result<(AccountToken, Option<Instant>), Error> {
        let (namespace, kind, name) = self.place();
        let live = pass.ctx.engine.read_in(&pass.owner, kind, &namespace, &name).await?;
        let held = live.and_then(|live| password_in(&live.data(".dockerconfigjson")?));
        let held = held.and_then(|text| self.account.token(text)).filter(|token| !token.is_due(pass.now));
        match held {
            Some(token) => Ok((token, None)),
            None => Ok((self.ask(pass).await?, Some(Instant::now()))),
        }
    }

    async fn ask(&self, pass: &Pass<'_>) -> Result<AccountToken, Error> {
        let Account { namespace, name, .. } = &self.account;
        let account = || format!("{namespace}/{name}");
        let api: Api<ServiceAccount> = Api::namespaced(pass.ctx.client.clone(), namespace);
        let asked = api.create_token_request(name, &PostParams::default(), &self.account.request()).await;
        let answer = asked.map_err(|source| Error::AccountToken { account: account(), source: Box::new(source) })?;
        let text = answer.status.and_then(|status| status.token);
        let token = text.and_then(|text| self.account.token(text.into()));
        token.ok_or_else(|| Error::AccountTokenUnusable { account: account() })
    }
}
