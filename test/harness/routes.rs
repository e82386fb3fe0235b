//! Gateways with routes and names, the backends of each, and visitors who choose a host.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use ptth_client::Body;
use ptth_client::config as client;
use ptth_link::settings::Mistake;
use ptth_link::token::Token;
use ptth_server::Order;
use ptth_server::config::{Args, Config, ConfigError, NameGrant, Names, Route};
use ptth_server::lab::Grant;
use ptth_server::lab::RouteId;
use ptth_server::lab::{Credential, Files, Settings};
use tower_service::Service;

use crate::{Answer, Backend, Dialect, GatewayBox, H1, H2, soon};

/// The credential of these words of a configuration: `key = "…"`.
pub fn credential(settings: &str) -> Arc<dyn Credential> {
    let text = format!("it = {{ {settings} }}");
    let mut tables: BTreeMap<String, Settings> = toml::from_str(&text).expect("a credential");
    let settings = tables.remove("it").expect("it is there");
    settings.load(&mut Files::new(Path::new(""))).expect("a credential")
}

/// Who proves to hold `token`.
pub fn key(token: &Token) -> Arc<dyn Credential> {
    credential(&format!("key = \"{}\"", token.public()))
}

/// A route for `hosts` that these may serve.
pub fn route(name: &str, hosts: &[&str], allowed: &[&Token]) -> Route {
    let hosts = hosts.iter().map(|host| host.parse().expect("a host")).collect();
    let mut route = Route::new(name, hosts);
    route.allow = Some(allowed.iter().map(|token| key(token)).collect());
    route
}

/// Names under `tunnel.example.test`: those of each list for the one beside it, any for `None`.
pub fn names(allowed: &[(&Token, Option<&[&str]>)]) -> Names {
    let grant = |(token, names): &(&Token, Option<&[&str]>)| NameGrant {
        names: names.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        credential: key(token),
    };
    Names::new("tunnel.example.test", allowed.iter().map(grant).collect())
}

/// A gateway whose configuration a test changes while it runs.
#[derive(Debug)]
pub struct Changing {
    /// The gateway.
    pub gateway: GatewayBox,
    next: Arc<Mutex<Option<Config>>>,
    /// How often it was read.
    read: Arc<AtomicUsize>,
    config: Config,
}

impl Changing {
    /// Starts it after `change`.
    pub fn start(change: impl FnOnce(&mut Config)) -> Self {
        let token = Token::generate();
        let mut config = GatewayBox::config(&token);
        change(&mut config);
        let next = Arc::new(Mutex::new(Some(config.clone())));
        let read = Arc::new(AtomicUsize::new(0));
        let (source, count) = (next.clone(), read.clone());
        let load = move || {
            count.fetch_add(1, Ordering::Relaxed);
            source
                .lock()
                .expect("no panic")
                .clone()
                .ok_or_else(|| ConfigError::from(Mistake::new("no configuration")))
        };
        Self { gateway: GatewayBox::reloading(&config, token, load), next, read, config }
    }

    /// Changes the configuration, and waits until it is in force.
    pub async fn change(&mut self, change: impl FnOnce(&mut Config)) {
        let before = self.gateway.registry.policy();
        change(&mut self.config);
        self.config.digest[0] = self.config.digest[0].wrapping_add(1);
        *self.next.lock().expect("no panic") = Some(self.config.clone());
        self.gateway.order(Order::Reload);
        soon("the new configuration", async {
            while Arc::ptr_eq(&before, &self.gateway.registry.policy()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// What is read from here on is no configuration; waits until it was.
    pub async fn spoil(&self) {
        *self.next.lock().expect("no panic") = None;
        reread(&self.gateway, &self.read).await;
    }
}

/// Has the gateway read its configuration, and waits until it has done what comes of that.
async fn reread(gateway: &GatewayBox, read: &AtomicUsize) {
    let before = read.load(Ordering::Relaxed);
    // Orders are carried out one after the other: with the second begun, the first is done.
    gateway.order(Order::Reload);
    gateway.order(Order::Reload);
    soon("the reading", async {
        while read.load(Ordering::Relaxed) < before + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A gateway whose configuration is a file.
#[derive(Debug)]
pub struct Filed {
    /// The gateway.
    pub gateway: GatewayBox,
    read: Arc<AtomicUsize>,
}

impl Filed {
    /// Starts it with the file at `path`.
    pub fn start(path: &Path) -> Self {
        let args = ["--config".to_owned(), path.display().to_string()];
        let load = move || {
            let args = ptth_link::cli::parse::<Args>("2ptth-server", args.clone())
                .unwrap_or_else(|exit| panic!("{}", exit.output));
            Config::load(&args, &|_| None)
        };
        let config = load().expect("a configuration");
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let counted = move || {
            count.fetch_add(1, Ordering::Relaxed);
            load()
        };
        Self { gateway: GatewayBox::reloading(&config, Token::generate(), counted), read }
    }

    /// Has it read the file, and waits until it has done what comes of that.
    pub async fn reread(&self) {
        reread(&self.gateway, &self.read).await;
    }
}

/// All paths of a host, as a route has them.
pub fn site(host: &str) -> RouteId {
    RouteId::Host(host.parse().expect("a host"), "/".into())
}

/// The same, granted to whoever holds a key.
pub fn grant(host: &str) -> Grant {
    Grant::by_key(site(host))
}

/// A client's configuration: one tunnel, by `token`.
pub fn client(gateway: &GatewayBox, token: &Token) -> client::Config {
    let mut config = gateway.client_config();
    config.token = Some(token.clone());
    config.tunnels = 1;
    config
}

/// A backend with one tunnel that answers with its name and what it was asked.
pub fn backend(gateway: &GatewayBox, token: &Token, name: &'static str) -> Backend {
    Backend::start(client(gateway, token), Tell(name))
}

/// Answers with its name, the host, the path, and X-Forwarded-Prefix if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Tell(pub &'static str);

impl Service<Request<Body>> for Tell {
    type Response = Response<http_body_util::Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let prefixes = request.headers().get_all("x-forwarded-prefix").iter();
        let prefixes: Vec<_> =
            prefixes.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let text = format!("{} {host} {path} {}", self.0, prefixes.join("|"));
        let response = Response::new(Bytes::from(text.trim_end().to_owned()).into());
        Box::pin(async move { Ok(response) })
    }
}

/// GET of any host, with these fields, on a connection of its own.
pub async fn get_with(
    dialect: Dialect,
    gateway: &GatewayBox,
    (host, path): (&str, &str),
    fields: &[(&str, &str)],
) -> Answer {
    match dialect {
        Dialect::H1 => {
            let fields: String =
                fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            H1::ask(gateway, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await
        }
        Dialect::H2 => get_on(&H2::connect(gateway).await, (host, path), fields).await,
    }
}

/// The same on an HTTP/2 connection that is there.
pub async fn get_on(visitor: &H2, (host, path): (&str, &str), fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(format!("https://{host}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (response, _) = visitor.open(request.body(()).expect("a request"), true).await;
    crate::h2::read(response).await
}

/// Status and body of a GET, by HTTP/1.1.
pub async fn get(gateway: &GatewayBox, host: &str, path: &str) -> (u16, String) {
    let answer = get_with(Dialect::H1, gateway, (host, path), &[]).await;
    (answer.status, answer.text())
}

/// Waits until exactly so many tunnels take requests for a host.
pub async fn until_serving(gateway: &GatewayBox, host: &str, count: usize) {
    let serving = || {
        let found = gateway.registry.policy().find(host, "/").ok();
        let all = found.map(|found| found.route.pool.all()).unwrap_or_default();
        all.iter().filter(|tunnel| !tunnel.is_draining()).count()
    };
    soon("the tunnels", async {
        while serving() != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
