//! How the process talks to the API server: where the cluster is found, and the two clients.
//!
//! Two, so that a renewal of the lease never queues behind a burst of other requests. Watches of the one for work share connections ([`Lanes`]). Nothing here sends a request: a cluster that is down is a state
//! to wait in (see `preflight`), not a reason to end.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::BoxError;

use super::api_error;
use super::fence::Fence;
use super::flag_values::duration;
use super::gate::{self, Gate};
use super::lanes::{LaneError, Lanes};
use crate::metrics::Metrics;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What a connection reads at once: no less than a TLS record. Otherwise each would go on with as much as the longest list took that came through it.
const READ_BYTES: usize = 16 << 10;
/// Connections that are kept for the next requests. Each has some fifty kilobytes of buffers, and a burst would leave one for each request at once.
const IDLE: usize = 4;
/// Renewals come one after the other; the second place is for the release.
const LEASE_CONCURRENCY: usize = 2;

/// Which cluster, and how hard it may be pressed.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ClientSettings {
    /// Kubeconfig file [default: $KUBECONFIG, else the pod's ServiceAccount, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use instead of its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// How long one request may wait for an answer, retries included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub api_timeout: Duration,
    /// How many requests may wait for an answer at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = concurrency)]
    pub api_concurrency: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { kubeconfig: None, context: None, api_timeout: Duration::from_secs(10), api_concurrency: 16 }
    }
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("must be a number from 1 to 1024".to_owned()),
    }
}

/// Why no client could be made. All texts are free of secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no kubeconfig, and this is no pod.
    #[error(
        "no cluster to talk to: this is not a pod, and there is no kubeconfig; set KUBECONFIG or give --kubeconfig FILE"
    )]
    NoCluster,
    /// The kubeconfig can't be used.
    #[error("kubeconfig {source_name}: {problem}")]
    Kubeconfig {
        /// The file, or the variable that names it.
        source_name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The pod's ServiceAccount can't be used.
    #[error(
        "this pod has no usable ServiceAccount: {0}; the pod needs automountServiceAccountToken: true and a serviceAccountName"
    )]
    ServiceAccount(String),
    /// The credentials or certificates can't be used.
    #[error("connect to {server}: {problem}")]
    Credentials {
        /// Scheme, host and port.
        server: String,
        /// What is wrong with them.
        problem: String,
    },
}

/// The two ways to the cluster.
#[derive(Clone)]
pub struct Clients {
    /// For everything but the lease. Refuses writes while the [`Fence`] is shut.
    pub work: Client,
    /// For the lease alone; never fenced.
    pub lease: Client,
    /// Scheme, host and port of the API server, for messages.
    pub server: String,
    /// The namespace that the kubeconfig's context or the pod's ServiceAccount stands in.
    pub namespace: String,
}

impl fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clients").field("server", &self.server).field("namespace", &self.namespace).finish()
    }
}

/// Makes the clients; sends nothing yet.
///
/// # Errors
/// No configuration was found, or it can't be used.
pub async fn connect(
    settings: &ClientSettings,
    fence: &Fence,
    metrics: &Arc<Metrics>,
) -> Result<Clients, ConnectError> {
    let mut config = locate(settings).await?;
    let program = metrics.program();
    if let Ok(agent) = HeaderValue::from_str(&format!("{}/{}", program.name, program.version)) {
        config.headers.push((header::USER_AGENT, agent));
    }

    let server = server(&config);
    let namespace = config.default_namespace.trim().to_owned();
    let unusable = |error| ConnectError::Credentials { server: server.clone(), problem: api_error::explain(&error) };
    let gate = |fence: Option<Fence>, concurrency| Gate {
        fence,
        header_limit: settings.api_timeout,
        concurrency,
        metrics: Arc::clone(metrics),
    };
    let lanes = Lanes::new(&config, CONNECT_LIMIT).map_err(unusable)?;
    let work = transport(&config, lanes).map_err(unusable)?;
    let work = gate(Some(fence.clone()), settings.api_concurrency).guard(work);
    let lease = gate(None, LEASE_CONCURRENCY).guard(transport(&config, None).map_err(unusable)?);
    Ok(Clients { work, lease, server, namespace })
}

/// Requests are sent through it as they are: the gate's limits are not its concern. Each request that is under way has a connection, but watches share
/// theirs (`lanes`) where the server speaks HTTP/2.
pub(super) fn transport(config: &Config, lanes: Option<Lanes>) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // Says what is wrong with it.
        return ClientBuilder::try_from(config.clone()).map(ClientBuilder::build);
    }
    let mut connector = TimeoutConnector::new(config.rustls_https_connector()?);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    let mut single = legacy::Client::builder(TokioExecutor::new());
    let single = single.http1_read_buf_exact_size(READ_BYTES).pool_max_idle_per_host(IDLE).build(connector);
    let lanes = lanes.map(Arc::new);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (single, lanes) = (single.clone(), lanes.clone());
        let lanes = lanes.filter(|lanes| lanes.may_be_spoken() && gate::is_watch(request.uri()));
        async move {
            let Some((lanes, again)) = lanes.zip(gate::copy(&request)) else {
                return Ok(single.request(request).await.map_err(BoxError::from)?.map(BodyExt::boxed_unsync));
            };
            match lanes.send(request).await {
                Err(LaneError::NotSpoken) => Ok(single.request(again).await?.map(BodyExt::boxed_unsync)),
                answer => Ok(answer?.map(BodyExt::boxed_unsync)),
            }
        }
    });
    let client = ClientBuilder::new(service, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&tower::util::option_layer(config.auth_layer()?))
        .with_layer(&config.base_uri_layer());
    Ok(client.build())
}

/// Scheme, host and port alone: the rest of a URL may hold a password.
fn server(config: &Config) -> String {
    let url = &config.cluster_url;
    let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme_str().unwrap_or("https"), url.host().unwrap_or_default())
}

/// Where the configuration comes from, in client-go's order.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable,
    Pod,
    Home(PathBuf),
    Nowhere,
}

struct Surroundings {
    kubeconfig_variable: bool,
    in_pod: bool,
    home_file: Option<PathBuf>,
}

impl Surroundings {
    fn look() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            kubeconfig_variable: set("KUBECONFIG"),
            in_pod: set("KUBERNETES_SERVICE_HOST"),
            home_file: std::env::home_dir().map(|home| home.join(".kube/config")).filter(|file| file.exists()),
        }
    }
}

fn source(settings: &ClientSettings, around: Surroundings) -> Source {
    if let Some(file) = &settings.kubeconfig {
        return Source::File(file.clone());
    }
    match around {
        Surroundings { kubeconfig_variable: true, .. } => Source::Variable,
        // A pod has no contexts, so one that is asked for must be in a file.
        Surroundings { in_pod: true, .. } if settings.context.is_none() => Source::Pod,
        Surroundings { home_file: Some(file), .. } => Source::Home(file),
        _ => Source::Nowhere,
    }
}

/// Where the cluster is and who we are there. Reads files and may run a credential plugin; sends nothing to the cluster.
///
/// # Errors
/// No configuration was found, or it can't be used.
pub async fn locate(settings: &ClientSettings) -> Result<Config, ConnectError> {
    let (read, source_name) = match source(settings, Surroundings::look()) {
        Source::Nowhere => return Err(ConnectError::NoCluster),
        Source::Pod => return Config::incluster().map_err(|error| ConnectError::ServiceAccount(error.to_string())),
        Source::Variable => (Kubeconfig::read(), "in $KUBECONFIG".to_owned()),
        Source::File(file) | Source::Home(file) => (Kubeconfig::read_from(&file), file.display().to_string()),
    };
    let wrong =
        |error| ConnectError::Kubeconfig { source_name: source_name.clone(), problem: api_error::kubeconfig(&error) };
    let file = read.map_err(wrong)?;
    let proxies: Vec<_> = file.clusters.iter().filter_map(|named| named.cluster.as_ref()?.proxy_url.clone()).collect();
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(file, &options).await.map_err(wrong)?;
    // A proxy from HTTPS_PROXY is meant for the internet, and NO_PROXY usually exempts the API server.
    let named_in_file = config.proxy_url.as_ref().is_some_and(|url| proxies.iter().any(|proxy| url == proxy.as_str()));
    if !named_in_file {
        config.proxy_url = None;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::PROGRAM;

    const PLANTED: &str = "planted-token-0815";

    fn kubeconfig_file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn good(server: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u, namespace: team}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
        )
    }

    async fn connect_with(text: &str, context: Option<&str>) -> Result<Clients, ConnectError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = kubeconfig_file(text);
        let settings = ClientSettings {
            kubeconfig: Some(file.path().to_owned()),
            context: context.map(str::to_owned),
            ..ClientSettings::default()
        };
        connect(&settings, &Fence::open(), &Metrics::new(&PROGRAM, |_| ())).await
    }

    #[test]
    fn the_configuration_is_looked_for_in_a_fixed_order() {
        let settings = ClientSettings::default();
        let around = |kubeconfig_variable, in_pod, home: Option<&str>| Surroundings {
            kubeconfig_variable,
            in_pod,
            home_file: home.map(PathBuf::from),
        };
        let explicit = ClientSettings { kubeconfig: Some("f".into()), ..settings.clone() };
        assert_eq!(source(&explicit, around(true, true, Some("h"))), Source::File("f".into()));
        assert_eq!(source(&settings, around(true, true, Some("h"))), Source::Variable);
        assert_eq!(source(&settings, around(false, true, Some("h"))), Source::Pod);
        assert_eq!(source(&settings, around(false, false, Some("h"))), Source::Home("h".into()));
        assert_eq!(source(&settings, around(false, false, None)), Source::Nowhere);
        let context = ClientSettings { context: Some("x".into()), ..settings };
        assert_eq!(source(&context, around(false, true, Some("h"))), Source::Home("h".into()));
        assert_eq!(source(&context, around(false, true, None)), Source::Nowhere);
    }

    #[tokio::test]
    async fn a_context_gives_server_and_namespace_and_hides_the_rest() {
        let text = good("https://admin:planted-token-0815@10.0.0.1:6443/path", &format!("{{token: {PLANTED}}}"));
        let clients = connect_with(&text, None).await.unwrap();
        assert_eq!(clients.server, "https://10.0.0.1:6443");
        assert_eq!(clients.namespace, "team");
        assert!(!format!("{clients:?}").contains(PLANTED));
    }

    #[tokio::test]
    async fn a_broken_kubeconfig_is_explained_without_quoting_it() {
        let token_line = format!("users: [{{name: u, user: {{token: {PLANTED}, client-key-data: 'x{PLANTED}'}}}}]");
        let cases = [
            (format!("clusters: {{{token_line}\n- ]"), None, "not a kubeconfig: look at line"),
            (format!("users:\n- name: u\n  user:\n    token: [{PLANTED}]\n"), None, "not a kubeconfig: look at line 4"),
            (token_line.clone(), None, "no current context"),
            (good("https://h", &format!("{{token: {PLANTED}}}")), Some("other"), "no context \"other\""),
            (good("not a url", "{}"), None, "not a URL"),
            (
                good("https://h", &format!("{{client-certificate-data: 'x{PLANTED}', client-key-data: 'x{PLANTED}'}}")),
                None,
                "client",
            ),
            (
                good(
                    "https://h",
                    &format!(
                        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'echo {PLANTED}; exit 3'], interactiveMode: Never}}}}"
                    ),
                ),
                None,
                "credential plugin failed (exit status: 3)",
            ),
        ];
        for (text, context, expected) in cases {
            let error = connect_with(&text, context).await.unwrap_err();
            let words = format!("{error} {error:?}");
            assert!(words.contains(expected), "{words}");
            assert!(!words.contains(PLANTED), "{words}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let settings = ClientSettings { kubeconfig: Some("/nowhere/config".into()), ..ClientSettings::default() };
        let error = connect(&settings, &Fence::open(), &Metrics::new(&PROGRAM, |_| ())).await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/config can't be read: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_explained() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let clients = connect_with(&good(&format!("http://{address}"), "{}"), None).await.unwrap();
        let error = clients.work.apiserver_version().await.unwrap_err();
        assert!(api_error::explain(&error).starts_with("can't be reached: "), "{}", api_error::explain(&error));
        assert!(api_error::explain(&error).to_lowercase().contains("refused"), "{}", api_error::explain(&error));
    }

    #[tokio::test]
    async fn requests_carry_our_name() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clients = connect_with(&good(&format!("http://{address}"), "{}"), None).await.unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        let (head, _) = tokio::join!(server, clients.work.apiserver_version());
        assert!(head.contains("user-agent: test-operator/0.0.0\r\n"), "{head}");
    }
}
