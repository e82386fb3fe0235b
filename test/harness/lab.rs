//! Gateway, tunnels and visitors without sockets: one runtime, whose clock a test may pause.
//!
//! What is left out is the listener: TCP, TLS and the thread for each core.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use ptth_client::Body;
use ptth_client::journal::Journal;
use ptth_client::serve::{Answering, Ended, answer};
use ptth_link::budget::Budget;
use ptth_link::limits::BODY_BUDGET;
use ptth_link::shutdown::{Shutdown, Trigger, channel};
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::lab::{
    Admitted, Grant, Identity, Policy, Pool, Registry, Shard, Visitor, attach, metrics, serve_h1,
    serve_h2,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower_service::Service;

use crate::routes::grant;
use crate::{H1, Peer, soon};

/// A gateway with neither socket nor thread. Dropping it cuts everything.
#[derive(Debug)]
pub struct Lab {
    /// Its tunnels.
    pub pool: Arc<Pool>,
    /// All its tunnels, and its policy.
    pub registry: Arc<Registry>,
    shard: Arc<Shard>,
    /// What bodies hold at the gateway.
    pub budget: Arc<Budget>,
    /// What bodies hold at the clients of [`Lab::serve`].
    pub client_budget: Arc<Budget>,
    /// Clients take whoever asks for a gateway of another make.
    pub foreign_gateway: bool,
    shutdown: Shutdown,
    #[allow(dead_code, reason = "held for its drop, which would end the process")]
    trigger: Trigger,
    running: JoinSet<()>,
}

impl Default for Lab {
    fn default() -> Self {
        Self::with(|_| {})
    }
}

impl Lab {
    /// A lab whose gateway has its configuration from `change`.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (trigger, shutdown) = channel();
        let config = configuration(change);
        let (shard, _) = Shard::alone(&config, shutdown.clone()).expect("a lab");
        apply(&shard, &config, None);
        let registry = shard.registry.clone();
        let routes = registry.policy();
        let pool = routes.routes().first().map_or_else(|| Pool::new(1), |it| it.pool.clone());
        Self {
            pool,
            registry,
            budget: shard.budget.clone(),
            shard,
            client_budget: Budget::new(BODY_BUDGET),
            foreign_gateway: false,
            shutdown,
            trigger,
            running: JoinSet::new(),
        }
    }

    /// Gives the gateway, before it has connections, another budget for bodies, in bytes.
    pub fn hold_at_most(&mut self, bytes: usize) {
        let shard = Arc::get_mut(&mut self.shard).expect("no connection yet");
        let shared = Arc::get_mut(&mut shard.shared).expect("one shard");
        shared.budget = Budget::new(bytes);
        self.budget = shared.budget.clone();
    }

    /// Gives the gateway another configuration, as a reload does.
    pub fn reload(&mut self, change: impl FnOnce(&mut Config)) {
        apply(&self.shard, &configuration(change), Some(&self.registry.policy()));
    }

    /// A lab whose backend, our client, answers with `service`.
    pub async fn serving<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let mut lab = Self::default();
        drop(lab.serve(service).await);
        lab
    }

    /// Our client's end of one more tunnel, up. Why it ended will come by the receiver.
    pub async fn serve<S, B>(&mut self, service: S) -> oneshot::Receiver<Ended>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let before = self.pool.all().len();
        let io = self.tunnel(Identity { ours: true, ..Identity::default() });
        let ended = self.answer(io, service);
        soon("the tunnel", self.pool.until(|tunnels| tunnels.len() > before)).await;
        ended
    }

    /// Our client without a gateway: a raw one asks. Why the tunnel ended will come by the receiver.
    pub async fn client<S, B>(
        &mut self,
        service: S,
        settings: &[(u16, u32)],
    ) -> (Peer<DuplexStream>, oneshot::Receiver<Ended>)
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let (near, ended) = self.client_socket(service);
        (Peer::asking(near, settings).await, ended)
    }

    /// The same, of which nothing was asked yet.
    pub fn client_socket<S, B>(&mut self, service: S) -> (DuplexStream, oneshot::Receiver<Ended>)
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let (near, far) = duplex(PIPE);
        let ended = self.answer(far, service);
        (near, ended)
    }

    /// Our client's end of a tunnel for `grants`. Why it ended will come by the receiver.
    pub fn serve_as<S, B>(
        &mut self,
        identity: Identity,
        grants: Vec<Grant>,
        service: S,
    ) -> oneshot::Receiver<Ended>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let (near, far) = duplex(PIPE);
        self.attach_to(near, identity, grants);
        self.answer(far, service)
    }

    fn answer<S, B>(&mut self, io: DuplexStream, service: S) -> oneshot::Receiver<Ended>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: std::fmt::Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let answering = Answering {
            budget: self.client_budget.clone(),
            ours: !self.foreign_gateway,
            ..Answering::new(Journal::default())
        };
        let (up, _) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let shutdown = self.shutdown.clone();
        self.running.spawn(async move {
            let _ = end.send(answer(io, service, answering, shutdown, up).await);
        });
        ended
    }

    /// A raw backend, up, that announced `settings`.
    pub async fn backend(&mut self, settings: &[(u16, u32)]) -> Peer<DuplexStream> {
        self.backend_as(Identity::default(), settings).await
    }

    /// The same for a raw backend that says who it is.
    pub async fn backend_as(
        &mut self,
        identity: Identity,
        settings: &[(u16, u32)],
    ) -> Peer<DuplexStream> {
        let before = self.pool.all().len();
        let io = self.tunnel(identity);
        let mut peer = Peer::answering(io, settings).await;
        let up = self.pool.clone();
        // The gateway asks for a PONG first, so the peer is read meanwhile; it has nothing else to say.
        let reading = async { while peer.next().await.is_some() {} };
        tokio::select! {
            () = up.until(|tunnels| tunnels.len() > before) => {}
            () = reading => panic!("the gateway closed"),
        }
        peer
    }

    /// A connection whose other end the gateway drives as a tunnel.
    pub fn tunnel(&mut self, identity: Identity) -> DuplexStream {
        let (near, far) = duplex(PIPE);
        self.attach(near, identity);
        far
    }

    /// Has the gateway drive `io` as a tunnel for its one unnamed route.
    pub fn attach<IO>(&mut self, io: IO, identity: Identity)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.attach_to(io, identity, vec![grant("*")]);
    }

    /// The same for `grants`.
    pub fn attach_to<IO>(&mut self, io: IO, identity: Identity, grants: Vec<Grant>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let permit = Arc::default();
        let backend = Admitted {
            identity,
            grants,
            proven: false,
            permit,
            announce: false,
            from: None,
            tap: None,
        };
        let shard = self.shard.clone();
        self.running.spawn(async move {
            attach(io, backend, shard).await;
        });
    }

    /// Puts any other work beside the gateway's.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        // What is over goes first: some tests have a hundred thousand visitors.
        while self.running.try_join_next().is_some() {}
        self.running.spawn(work);
    }

    /// A visitor's HTTP/1.1 connection.
    pub fn h1(&mut self) -> H1<DuplexStream> {
        let (near, far) = duplex(PIPE);
        let visitor = self.visitor();
        self.spawn(serve_h1(Arc::new(visitor), near));
        H1::over(far)
    }

    /// A visitor's connection that the gateway takes for HTTP/2, of which nothing has come yet.
    pub fn h2_socket(&mut self) -> DuplexStream {
        let (near, far) = duplex(PIPE);
        let visitor = self.visitor();
        self.spawn(serve_h2(Arc::new(visitor), near));
        far
    }

    /// A visitor's HTTP/2 connection, by hand.
    pub async fn h2(&mut self, settings: &[(u16, u32)]) -> Peer<DuplexStream> {
        Peer::asking(self.h2_socket(), settings).await
    }

    /// The page of metrics for a reader that accepts this, and its kind.
    pub fn metrics(&self, accept: Option<&HeaderValue>) -> (&'static str, String) {
        metrics(&self.shard.shared, accept)
    }

    /// What a connection's exchanges get. Each is of somebody else: one address can't have all streams.
    pub fn visitor(&self) -> Visitor {
        static NEXT: AtomicU32 = AtomicU32::new(u32::from_be_bytes([198, 18, 0, 1]));
        let address = IpAddr::V4(NEXT.fetch_add(1, Ordering::Relaxed).into());
        Visitor::new(&self.shard, address, None, Arc::default())
    }
}

fn configuration(change: impl FnOnce(&mut Config)) -> Config {
    let names = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let admission = Admission::Keys { keys: Vec::new(), file: None, made: None };
    let mut config = Config::new(names, admission);
    change(&mut config);
    config
}

/// Puts the policy of `config` in force.
fn apply(shard: &Shard, config: &Config, before: Option<&Policy>) {
    let known = &shard.tls.known;
    known.replace(false, &[]);
    let policy = Policy::new(config, known, 1, before);
    // Every backend of the lab was let in; and unlike an open gateway's, there may be several.
    known.replace(true, &[]);
    shard.registry.swap(policy);
}

/// A service made of a function.
#[derive(Clone, Debug)]
pub struct Function<F>(pub F);

impl<F, R, B> Service<Request<Body>> for Function<F>
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<B>> + Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.0(request);
        Box::pin(async move { Ok(response.await) })
    }
}

/// What a loopback socket holds, about.
const PIPE: usize = 256 * 1024;
