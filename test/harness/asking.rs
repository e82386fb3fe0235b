//! A gateway that admits anybody by ALPN, and then asks what a test says.

use ptth_client::config::{Config, Gateway, Trust};
use ptth_link::token::Token;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use crate::fake::{Fake, Tls};
use crate::{Peer, soon};

type Tunnel = Peer<TlsStream<DuplexStream>>;

/// The gateway: each tunnel that is dialled, and on which it has begun to ask.
#[derive(Debug)]
pub struct FakeGateway {
    /// How to reach it.
    pub network: Fake,
    pin: [u8; 32],
    dialled: mpsc::UnboundedReceiver<Tunnel>,
}

impl FakeGateway {
    /// On a network of its own.
    pub fn start() -> Self {
        let (network, tls) = (Fake::default(), Tls::speaking(&[b"2ptth"]));
        let (tell, dialled) = mpsc::unbounded_channel();
        let pin = tls.pin;
        network.put("example.test:443", move |io, _| {
            let (tls, tell) = (tls.clone(), tell.clone());
            async move {
                if let Ok(stream) = tls.accept(io).await {
                    let _ = tell.send(Peer::asking(stream, &[]).await);
                }
            }
        });
        Self { network, pin, dialled }
    }

    /// What a client needs to know to hold tunnels to it.
    pub fn client_config(&self) -> Config {
        let mut config = Config::new(Gateway { host: "example.test".to_owned(), port: 443 });
        config.trust = Trust::Pin(self.pin);
        config.token = Some(Token::generate());
        config
    }

    /// Whether there is no tunnel but those that the test has.
    pub fn nobody_dials(&mut self) -> bool {
        self.dialled.try_recv().is_err()
    }

    /// The next tunnel.
    pub async fn tunnel(&mut self) -> Tunnel {
        soon("a tunnel", self.dialled.recv()).await.expect("the network is there")
    }
}
