//! nginx's configuration, made of directives and not of text: what stands in it is quoted where it must be, in one place.
//!
//! Reference: <https://nginx.org/en/docs/dirindex.html>. It is understood from nginx 1.19.10 on.

use std::fmt::{self, Display, Write as _};

use super::config::DRAIN_SECONDS;
use super::frontend::{GATE, LISTEN, PAIR, SCRATCH, SOCKET};
use super::pod::{self, FRONTEND_CONFIG};
use super::secrets::CLIENT_CA_KEY;
use crate::api::{CipherSuite, TlsVersion};
use crate::model::{Protocol, Pulls, Resolved, Users};

/// Path that nginx answers itself, whatever the registry does. No repository can have it.
pub const ALIVE: &str = "/-/alive";

/// Where clients get tokens. No repository can have it.
pub const TOKENS: &str = "/auth/token";

/// Where nginx asks whether a request may pass, where clients have tokens.
const JUDGE: &str = "/-/judge";
/// A push that may be asking for a layer of another repository.
const UPLOADS: &str = "^/v2/(?<repository>[a-z0-9][a-z0-9._/-]*)/blobs/uploads/$";

/// Where nginx asks whether a blob may be sent. Nobody can call it from outside.
const ALLOWED: &str = "/-/allowed";
/// Failed logins that a client's address gets answered in a second. The others wait for their turn.
const FAILED_LOGINS: &str = "10r/s";
/// How many requests with a login a client's address may have under way, and so how many failed ones may wait: who is answered with a refusal at once could
/// go on guessing.
const AT_ONCE: u32 = 1000;
/// The file of a blob, and nothing else: what is asked is made from the same pieces, not from what the client wrote.
const BLOB: &str =
    "^/v2/(?<repository>[a-z0-9][a-z0-9._/-]*)/blobs/sha256:(?<digest>(?<shard>[0-9a-f]{2})[0-9a-f]{62})$";

/// A manifest. The gate looks at what the client wrote, and understands what clients write.
const MANIFEST: &str = "^/v2/.+/manifests/[^/]+$";

/// What nginx would like a folder for.
const TEMPORARY: [&str; 5] = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// What the registry's manifest decides of it.
struct Configuration<'a> {
    tls: Option<&'a Protocol>,
    /// Whether the registry itself is told name and password.
    logins: bool,
    tokens: bool,
    pulls: Pulls,
    access_log: bool,
}

/// The file's text.
#[must_use]
pub fn render(registry: &Resolved) -> Option<String> {
    let frontend = registry.frontend.as_ref()?;
    let configuration = Configuration {
        tls: registry.has_tls().then_some(&registry.protocol),
        logins: matches!(registry.users, Users::Table { policy: None, .. }),
        tokens: registry.policy().is_some(),
        pulls: frontend.pulls,
        access_log: registry.config.access_log.unwrap_or(true),
    };
    Some(configuration.directives().iter().map(ToString::to_string).collect())
}

impl Configuration<'_> {
    fn directives(&self) -> Vec<Directive> {
        vec![
            set("daemon", ["off"]),
            // Not one for each of the node's processors, of which the pod may have few.
            set("worker_processes", ["2"]),
            set("worker_shutdown_timeout", [&format!("{DRAIN_SECONDS}s")]),
            set("pid", [&format!("{SCRATCH}/nginx.pid")]),
            set("error_log", ["stderr", "warn"]),
            block("events", [], vec![set("worker_connections", ["4096"])]),
            block("http", [], self.http()),
        ]
    }

    fn http(&self) -> Vec<Directive> {
        // What the gate says of who asks, as the answer to a question of nginx or to the client.
        let user = if self.tokens { "$who$upstream_http_x_user" } else { "$remote_user" };
        let mut http = vec![
            set("default_type", ["application/octet-stream"]),
            set("server_tokens", ["off"]),
            // No login and no query: neither Authorization nor the signed state of an upload is in it.
            set(
                "log_format",
                [
                    "access",
                    "escape=json",
                    &format!(
                        "{{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"user\":\"{user}\",\"method\":\"$request_method\",\
                     \"path\":\"$uri\",\"protocol\":\"$server_protocol\",\"status\":$status,\"received\":$request_length,\"sent\":$bytes_sent,\
                     \"seconds\":$request_time,\"registry\":\"$upstream_status\",\"limit\":\"$limit_req_status\",\"agent\":\"$http_user_agent\"}}"
                    ),
                ],
            ),
            // A connection without a request is no access.
            match self.access_log {
                true => set("access_log", ["/dev/stdout", "access", "if=$request_method"]),
                false => set("access_log", ["off"]),
            },
        ];
        // Nothing is ever written there, but nginx makes the folders when it starts.
        http.extend(TEMPORARY.map(|what| set(&format!("{what}_temp_path"), [&format!("{SCRATCH}/{what}")])));
        if self.logins {
            let login = vec![set("\"\"", [""]), set("default", ["$binary_remote_addr"])];
            http.extend([
                block("map", ["$http_authorization", "$login"], login),
                set("limit_req_zone", ["$login", "zone=failed_logins:1m", &format!("rate={FAILED_LOGINS}")]),
                set("limit_conn_zone", ["$login", "zone=logins:1m"]),
            ]);
        }
        http.extend(self.tokens.then(|| set("limit_conn_zone", ["$binary_remote_addr", "zone=askers:1m"])));
        if self.tls.is_some() {
            // Evaluated once for each handshake, so that certificate and key come from one pair even while it is exchanged.
            http.push(block("map", ["$realpath_root", "$pair"], vec![set("default", ["$realpath_root"])]));
        }
        if self.pulls != Pulls::Registry {
            // Paths that nginx has understood in another way than they are written.
            let same = set("\"~^([^ ]+) \\1(\\?|$)\"", [""]);
            http.push(block("map", ["$uri $request_uri", "$rewritten"], vec![set("default", ["1"]), same]));
        }
        if self.asks_for_certificates() {
            // Probes have no certificate. What they ask for tells nothing, and is compared as it came: other ways to write a path may be understood differently.
            let exempt = [ALIVE, "/"].map(|path| set(&format!("\"~^NONE {path}$\""), [""]));
            let answers = [set("default", ["1"]), set("\"~^SUCCESS \"", [""])].into_iter().chain(exempt).collect();
            http.push(block("map", ["$ssl_client_verify $request_uri", "$uncertified"], answers));
        }
        let upstream = |name: &str, socket: &str| {
            block("upstream", [name], vec![set("server", [&format!("unix:{socket}")]), set("keepalive", ["32"])])
        };
        http.push(upstream("registry", SOCKET));
        http.extend((self.pulls == Pulls::AskingGate || self.tokens).then(|| upstream("gate", GATE)));
        http.push(block("server", [], self.server()));
        http
    }

    fn server(&self) -> Vec<Directive> {
        let mut server = vec![set("include", [LISTEN])];
        if let Some(protocol) = self.tls {
            server.extend([
                // Read at each handshake: a renewed certificate needs no reload, which would close connections that clients keep.
                set("root", [PAIR]),
                set("ssl_certificate", ["$pair/tls.crt"]),
                set("ssl_certificate_key", ["$pair/tls.key"]),
                match protocol.minimum_version {
                    TlsVersion::VersionTLS12 => set("ssl_protocols", ["TLSv1.2", "TLSv1.3"]),
                    TlsVersion::VersionTLS13 => set("ssl_protocols", ["TLSv1.3"]),
                },
                set("ssl_ciphers", [&ciphers(protocol)]),
                set("ssl_session_cache", ["shared:tls:2m"]),
                set("ssl_session_tickets", ["off"]),
                // Plain HTTP on the port of TLS.
                set("error_page", ["497", "=308", "https://$http_host$request_uri"]),
            ]);
        }
        if self.asks_for_certificates() {
            server.extend([
                set("ssl_client_certificate", [&format!("{FRONTEND_CONFIG}/{CLIENT_CA_KEY}")]),
                set("ssl_verify_client", ["optional"]),
                set("ssl_verify_depth", ["5"]),
                set("error_page", ["495", "496", "=", "@uncertified"]),
                block("if", ["($uncertified)"], vec![set("return", ["496"])]),
            ]);
        }
        server.extend([
            set("client_max_body_size", ["0"]),
            set("client_header_timeout", ["30s"]),
            set("client_body_timeout", ["300s"]),
            set("send_timeout", ["300s"]),
            set("keepalive_timeout", ["75s"]),
            set("keepalive_requests", ["10000"]),
            set("reset_timedout_connection", ["on"]),
            set("proxy_http_version", ["1.1"]),
            set("proxy_connect_timeout", ["5s"]),
            set("proxy_read_timeout", ["900s"]),
            set("proxy_send_timeout", ["900s"]),
            // Uploads go on as they come. Answers pass through memory and never through a file.
            set("proxy_request_buffering", ["off"]),
            set("proxy_buffer_size", ["64k"]),
            // A token of an issuer, as a password in one head.
            set("large_client_header_buffers", ["4", "32k"]),
            set("proxy_buffers", ["16", "64k"]),
            set("proxy_busy_buffers_size", ["128k"]),
            set("proxy_max_temp_file_size", ["0"]),
            set("proxy_hide_header", ["X-Content-Type-Options"]),
        ]);
        server.extend(SECURITY.map(|(name, value)| set("add_header", [name, value, "always"])));
        server.extend(self.forwarded());
        if self.logins {
            server.extend([
                set("limit_conn", ["logins", &AT_ONCE.to_string()]),
                set("limit_conn_status", ["429"]),
                set("limit_req_status", ["429"]),
            ]);
        }
        server.push(block(
            "location",
            ["=", ALIVE],
            vec![set("access_log", ["off"]), set("default_type", ["text/plain"]), set("return", ["200", "alive\n"])],
        ));
        server.push(block("location", ["/"], self.everything()));
        if self.tokens {
            server.push(block("location", ["=", TOKENS], self.token_server()));
            server.push(block("location", ["=", JUDGE], self.judge()));
            server.push(block("location", ["/v2/"], self.judged(REGISTRY)));
            server.push(block(
                "location",
                ["~", UPLOADS],
                self.uploads(&format!("{REGISTRY}/v2/$repository/blobs/uploads/$query")),
            ));
            server.push(block("location", ["@denied"], denied()));
            server.push(block("location", ["@slowed"], slowed()));
            server.push(block("location", ["@unjudged"], unjudged()));
        }
        if self.pulls != Pulls::Registry {
            server.push(block("location", ["~", BLOB], self.blob()));
            server.push(block("location", ["=", ALLOWED], self.allowed()));
            let registry = if self.tokens { self.judged(REGISTRY) } else { self.everything() };
            server.push(block("location", ["@registry"], registry));
            server.push(block("location", ["@outside"], self.outside()));
        }
        if self.pulls == Pulls::AskingGate {
            server.push(block("location", ["~", MANIFEST], self.manifest()));
        }
        if self.logins {
            server.push(block("location", ["@refused"], self.refused(Challenge::Kept)));
        }
        if self.logins && self.pulls == Pulls::AskingGate {
            server.push(block("location", ["@unknown"], self.refused(Challenge::Missing)));
        }
        server.push(block("location", ["@absent"], absent()));
        if self.asks_for_certificates() {
            server.push(block("location", ["@uncertified"], uncertified()));
        }
        server
    }

    fn asks_for_certificates(&self) -> bool {
        self.tls.is_some_and(|protocol| protocol.client_authorities.is_some())
    }

    /// What the registry is told of who asks.
    fn forwarded(&self) -> Vec<Directive> {
        let header = |name: &str, value: &str| set("proxy_set_header", [name, value]);
        let mut headers = vec![header("Host", "$http_host"), header("Connection", "")];
        if self.tls.is_some() {
            // From outside they would be anybody's word.
            headers.extend([
                header("X-Forwarded-For", "$remote_addr"),
                header("X-Forwarded-Proto", "https"),
                header("X-Forwarded-Host", "$http_host"),
                header("X-Real-IP", "$remote_addr"),
                header("Forwarded", ""),
            ]);
        } else {
            // Without TLS somebody stands before it who ends it, and knows.
            headers.push(header("X-Forwarded-For", "$proxy_add_x_forwarded_for"));
        }
        // Whose wrong logins are counted together.
        headers.extend(self.tokens.then(|| header("X-Client", "$remote_addr")));
        headers
    }

    fn everything(&self) -> Vec<Directive> {
        let mut location = vec![set("proxy_pass", [REGISTRY]), set("error_page", ["502", "504", "=", "@absent"])];
        if self.logins {
            location.extend([set("proxy_intercept_errors", ["on"]), set("error_page", ["401", "=", "@refused"])]);
        }
        location
    }

    /// Passes on what may pass, as the judge says it.
    fn judged(&self, to: &str) -> Vec<Directive> {
        let mut location = vec![
            set("auth_request", [JUDGE]),
            set("auth_request_set", ["$granted", "$upstream_http_x_authorization"]),
            set("auth_request_set", ["$query", "$upstream_http_x_query"]),
            set("auth_request_set", ["$who", "$upstream_http_x_user"]),
            set("auth_request_set", ["$wait", "$upstream_http_retry_after"]),
            set("error_page", ["401", "=", "@denied"]),
            set("error_page", ["403", "=", "@slowed"]),
            set("error_page", ["500", "=", "@unjudged"]),
            set("error_page", ["502", "504", "=", "@absent"]),
            set("proxy_pass", [to]),
            set("proxy_set_header", ["Authorization", "$granted"]),
        ];
        location.extend(self.forwarded());
        location
    }

    /// Begins an upload. The registry would read what is to be mounted from a form, too, where nobody has judged it.
    fn uploads(&self, to: &str) -> Vec<Directive> {
        let mut location = self.judged(to);
        location.push(set("proxy_set_header", ["Content-Type", ""]));
        location
    }

    /// Asks the gate about a request.
    fn judge(&self) -> Vec<Directive> {
        let mut location = vec![
            set("internal", []),
            set("proxy_pass", [&format!("{GATES}{JUDGE}")]),
            set("proxy_read_timeout", [GATES_TIME]),
            set("proxy_method", ["GET"]),
            set("proxy_pass_request_body", ["off"]),
            set("proxy_set_header", ["Content-Length", ""]),
            set("proxy_set_header", ["X-Original-Method", "$request_method"]),
            set("proxy_set_header", ["X-Original-URI", "$request_uri"]),
        ];
        location.extend(self.forwarded());
        location
    }

    /// Passes a client on that asks for a token.
    fn token_server(&self) -> Vec<Directive> {
        let mut location = vec![
            set("proxy_pass", [GATES]),
            set("proxy_read_timeout", ["30s"]),
            set("limit_conn", ["askers", &AT_ONCE.to_string()]),
            set("limit_conn_status", ["429"]),
            set("client_max_body_size", ["64k"]),
            set("proxy_request_buffering", ["on"]),
            set("client_body_buffer_size", ["64k"]),
            set("error_page", ["502", "504", "=", "@unjudged"]),
        ];
        location.extend(self.forwarded());
        location
    }

    /// Where not everything is answered: what is not, the client is to hear from the registry.
    fn some(&self) -> Vec<Directive> {
        let failures = ["400", "403", "404", "414", "418", "431", "500", "502", "503", "504", "=", "@registry"];
        let mut location = vec![
            // So that what the registry says is looked at once more.
            set("recursive_error_pages", ["on"]),
            set("error_page", failures),
            elsewhere("($rewritten)"),
            // A body would be gone when the registry is asked.
            elsewhere("($content_length)"),
            elsewhere("($http_transfer_encoding)"),
        ];
        let refusal = if self.pulls == Pulls::AskingGate { "@unknown" } else { "@refused" };
        location.extend(self.logins.then(|| set("error_page", ["401", "=", refusal])));
        location
    }

    /// Sends a blob from the volume if the registry would.
    fn blob(&self) -> Vec<Directive> {
        let mut location = self.some();
        location.extend([
            elsewhere("($request_method != GET)"),
            elsewhere("($http_if_none_match)"),
            // nginx would compare with the time of the file, and with a mark of its own.
            elsewhere("($http_if_match)"),
            elsewhere("($http_if_unmodified_since)"),
            // Other ways to write a range are understood in more than one way.
            elsewhere("($http_range !~ \"^(bytes=[0-9]*-[0-9]*)?$\")"),
            set("error_page", ["416", "=", "@outside"]),
            set("auth_request", [ALLOWED]),
            // Who can write the volume could make a link to what only nginx may read.
            set("disable_symlinks", ["on", &format!("from={}/docker", pod::DATA)]),
            set("alias", [&format!("{}/docker/registry/v2/blobs/sha256/$shard/$digest/data", pod::DATA)]),
            // A volume that is slow holds up one request and not all of a worker's.
            set("aio", ["threads"]),
            // Each reading is handed to a thread and back: few large ones, not one for every 32 KiB.
            set("output_buffers", ["2", "256k"]),
            block("types", [], vec![]),
            set("etag", ["off"]),
            set("if_modified_since", ["off"]),
        ]);
        if self.tokens {
            location.extend([
                set("auth_request_set", ["$who", "$upstream_http_x_user"]),
                set("error_page", ["401", "=", "@denied"]),
            ]);
        }
        let header = |name: &str, value: &str| set("add_header", [name, value]);
        location.extend([
            header("Docker-Content-Digest", "sha256:$digest"),
            header("Docker-Distribution-Api-Version", "registry/2.0"),
            header("ETag", "\"sha256:$digest\""),
            header("Cache-Control", "max-age=31536000"),
            header("Last-Modified", ""),
        ]);
        location.extend(SECURITY.map(|(name, value)| set("add_header", [name, value, "always"])));
        location
    }

    /// A range that the blob does not have. nginx keeps what it would have said of the blob.
    fn outside(&self) -> Vec<Directive> {
        let mut location = if self.tokens { self.judged(REGISTRY) } else { self.everything() };
        let twice = ["Content-Range", "Docker-Content-Digest", "Docker-Distribution-Api-Version"];
        location.extend(twice.map(|name| set("proxy_hide_header", [name])));
        // Whoever hides one has to repeat what all hide.
        location.push(set("proxy_hide_header", ["X-Content-Type-Options"]));
        location
    }

    /// Passes on the manifest that the gate gives.
    fn manifest(&self) -> Vec<Directive> {
        let mut location = self.some();
        location.extend([
            elsewhere("($request_method !~ ^(GET|HEAD)$)"),
            set("proxy_pass", [GATES]),
            set("proxy_read_timeout", [GATES_TIME]),
            set("proxy_intercept_errors", ["on"]),
        ]);
        if self.tokens {
            // Whoever hides one has to repeat what all hide.
            location.extend(["X-User", "X-Content-Type-Options"].map(|name| set("proxy_hide_header", [name])));
        }
        location
    }

    fn allowed(&self) -> Vec<Directive> {
        let (who, time) = match self.pulls {
            Pulls::AskingGate => (GATES, GATES_TIME),
            Pulls::AskingRegistry | Pulls::Registry => (REGISTRY, "900s"),
        };
        let mut location = vec![
            set("internal", []),
            set("proxy_pass", [&format!("{who}/v2/$repository/blobs/sha256:$digest")]),
            set("proxy_read_timeout", [time]),
            set("proxy_method", ["HEAD"]),
            set("proxy_pass_request_body", ["off"]),
            set("proxy_set_header", ["Content-Length", ""]),
            set("proxy_set_header", ["Range", ""]),
            set("proxy_set_header", ["If-Range", ""]),
        ];
        location.extend(self.forwarded());
        location
    }

    /// A login that failed is answered later the more of them came from its address. What the client gets is what the registry says to who comes without a
    /// login: its own words and challenge, and no password is hashed for it.
    fn refused(&self, challenge: Challenge) -> Vec<Directive> {
        let mut location = vec![
            set("limit_req", ["zone=failed_logins", &format!("burst={AT_ONCE}")]),
            set("proxy_pass", [REGISTRY]),
            set("error_page", ["502", "504", "=", "@absent"]),
            set("proxy_method", ["GET"]),
            set("proxy_pass_request_body", ["off"]),
            set("proxy_set_header", ["Content-Length", ""]),
            set("proxy_set_header", ["Authorization", ""]),
            set("proxy_hide_header", ["X-Content-Type-Options"]),
        ];
        location.extend((challenge == Challenge::Kept).then(|| set("proxy_hide_header", ["WWW-Authenticate"])));
        location.extend(self.forwarded());
        location
    }
}

/// Whether nginx has kept the challenge of an answer that it replaces: the registry's had one, the gate's has none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Challenge {
    Kept,
    Missing,
}

/// Ciphers of TLS 1.2, as OpenSSL calls them.
fn ciphers(protocol: &Protocol) -> String {
    let name = |suite: &CipherSuite| match suite {
        CipherSuite::EcdsaAes128 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::EcdsaAes256 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::EcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::RsaAes128 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::RsaAes256 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::RsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
    };
    match protocol.cipher_suites.is_empty() {
        true => "ECDHE+AESGCM:ECDHE+CHACHA20".to_owned(),
        false => protocol.cipher_suites.iter().map(name).collect::<Vec<_>>().join(":"),
    }
}

/// The registry has not opened its socket, or has closed it.
fn absent() -> Vec<Directive> {
    let words =
        "{\"errors\":[{\"code\":\"UNAVAILABLE\",\"message\":\"the registry behind the front end does not run\"}]}\n";
    vec![
        set("default_type", ["application/json"]),
        set("add_header", ["Retry-After", "5", "always"]),
        set("return", ["503", words]),
    ]
}

/// Who asks has no login, or none that counts here. What a client needs a token for stands in the challenge, which nginx has kept.
fn denied() -> Vec<Directive> {
    let words =
        "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"a login is needed, or it does not allow this\"}]}\n";
    vec![set("default_type", ["application/json"]), set("return", ["401", words])]
}

/// Too many logins were wrong.
fn slowed() -> Vec<Directive> {
    let words = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"too many logins of this user from this address were wrong\"}]}\n";
    vec![
        set("default_type", ["application/json"]),
        set("add_header", ["Retry-After", "$wait", "always"]),
        set("return", ["429", words]),
    ]
}

/// The sidecar does not answer, or cannot read who may do what. Nothing passes.
fn unjudged() -> Vec<Directive> {
    let words = "{\"errors\":[{\"code\":\"UNAVAILABLE\",\"message\":\"logins cannot be checked now: see container sidecar of this pod\"}]}\n";
    vec![
        set("default_type", ["application/json"]),
        set("add_header", ["Retry-After", "5", "always"]),
        set("return", ["503", words]),
    ]
}

/// The client has shown no certificate that one of the authorities signed.
fn uncertified() -> Vec<Directive> {
    let words = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"this registry asks for a client certificate that its owner's authority has signed\"}]}\n";
    vec![set("default_type", ["application/json"]), set("return", ["403", words])]
}

/// Goes through `@registry`.
fn elsewhere(when: &str) -> Directive {
    block("if", [when], vec![set("return", ["418"])])
}

const REGISTRY: &str = "http://registry";
const GATES: &str = "http://gate";
/// How long the gate may take. It does not wait for the registry, only for the volume.
const GATES_TIME: &str = "5s";

/// For browsers that come across a blob. Not Strict-Transport-Security: it is about a host with all its ports, of which this is one.
const SECURITY: [(&str, &str); 4] = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
];

/// One directive. What is not a block has no directives in it.
struct Directive {
    name: String,
    arguments: Vec<String>,
    block: Option<Vec<Directive>>,
}

fn set<const N: usize>(name: &str, arguments: [&str; N]) -> Directive {
    Directive { name: name.to_owned(), arguments: arguments.map(str::to_owned).into(), block: None }
}

fn block<const N: usize>(name: &str, arguments: [&str; N], block: Vec<Directive>) -> Directive {
    Directive { block: Some(block), ..set(name, arguments) }
}

impl Directive {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = "    ".repeat(depth);
        write!(f, "{indent}{}", self.name)?;
        for argument in &self.arguments {
            // The condition of an `if` stands in parentheses, not in quotes.
            match self.name == "if" {
                true => write!(f, " {argument}")?,
                false => write!(f, " {}", quoted(argument))?,
            }
        }
        let Some(inner) = &self.block else { return f.write_str(";\n") };
        f.write_str(" {\n")?;
        inner.iter().try_for_each(|directive| directive.write(f, depth + 1))?;
        writeln!(f, "{indent}}}")
    }
}

impl Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// An argument as nginx reads it back.
fn quoted(argument: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "$_-./:=@%,+~*^!".contains(letter);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    let mut text = String::from("\"");
    for letter in argument.chars() {
        match letter {
            '"' | '\\' => _ = write!(text, "\\{letter}"),
            '\n' => text.push_str("\\n"),
            _ => text.push(letter),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nginx_would_take_for_its_own_is_quoted() {
        for (argument, written) in [
            ("64k", "64k"),
            ("$pair/tls.crt", "$pair/tls.crt"),
            ("=308", "=308"),
            ("", "\"\""),
            ("a b;c", "\"a b;c\""),
            ("[0-9]{2}", "\"[0-9]{2}\""),
            ("\"sha256\"", "\"\\\"sha256\\\"\""),
            ("one\n", "\"one\\n\""),
            ("#", "\"#\""),
        ] {
            assert_eq!(quoted(argument), written);
        }
    }

    #[test]
    fn a_block_stands_in_braces_and_a_directive_ends() {
        let blank = block("server", [], vec![set("internal", []), set("root", ["/a b"])]);
        assert_eq!(blank.to_string(), "server {\n    internal;\n    root \"/a b\";\n}\n");
    }
}
