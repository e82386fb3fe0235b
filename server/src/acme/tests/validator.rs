//! What the server that validates a name sees, and what other peers don't (RFC 8737).

use ptth_link::alpn;
use ptth_link::shutdown::channel;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::demux::Side;
use crate::listener::{Rewind, accept_tls};
use crate::shard::Shard;
use crate::tls::testing::{BOTH, Pair, client, gateway, shake};

const DIGEST: [u8; 32] = [7; 32];

fn is_refused(pair: &Pair) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    pair.server_error == Some(rustls::Error::NoApplicationProtocol)
        && pair.client_error == Some(alert)
}

#[test]
fn a_validator_sees_the_proof_of_its_name_while_the_order_is_under_way() {
    let tls = gateway(&[]);
    for version in BOTH {
        let ask = |name: &str, labels: &[&[u8]]| {
            shake(&tls, client(version, labels, Arc::default()), name)
        };
        assert!(is_refused(&ask("a.test", &[alpn::ACME])), "no order");
        let key = order::proof("a.test", &DIGEST).unwrap();
        let shown = tls.challenges.show("a.test", key);
        for name in ["a.test", "A.TEST"] {
            let pair = ask(name, &[alpn::ACME]);
            assert!(pair.done() && pair.side == Side::Challenge, "{:?}", pair.client_error);
            assert_eq!(pair.client.alpn_protocol(), Some(alpn::ACME));
            let certificates = pair.client.peer_certificates().unwrap();
            assert_eq!(certificates.len(), 1);
            let (_, seen) = X509Certificate::from_der(&certificates[0]).unwrap();
            let names = seen.subject_alternative_name().unwrap().unwrap();
            assert_eq!(format!("{:?}", names.value.general_names), r#"[DNSName("a.test")]"#);
            // RFC 8737 §6.1: id-pe-acmeIdentifier, an OCTET STRING.
            let proof =
                seen.extensions().iter().find(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
            let proof = proof.unwrap();
            assert!(proof.critical);
            assert_eq!(proof.value, [&[4, 32][..], &DIGEST].concat());
        }
        // It asks for something else, or for more.
        for labels in [&[alpn::ACME, alpn::H2][..], &[alpn::H2, alpn::ACME], &[alpn::H2], &[]] {
            let pair = ask("a.test", labels);
            assert!(pair.done() && pair.side == Side::Visitor, "{labels:?}");
            let seen = pair.client.peer_certificates().unwrap()[0].to_vec();
            let (_, seen) = X509Certificate::from_der(&seen).unwrap();
            assert!(
                seen.extensions().iter().all(|it| it.oid.to_id_string() != "1.3.6.1.5.5.7.1.31")
            );
        }
        for name in ["b.test", "192.0.2.1"] {
            assert!(is_refused(&ask(name, &[alpn::ACME])), "{name}");
        }
        drop(shown);
        assert!(is_refused(&ask("a.test", &[alpn::ACME])), "the order is over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_validators_connection_ends_after_the_handshake_without_a_byte_of_http() {
    let folder = Scratch::new();
    let source = CertificateSource::Acme { name: "a.test".into(), issuer: issuer(&folder) };
    let (_trigger, shutdown) = channel();
    let config = Config::new(source, Admission::make());
    let (shard, _work) = Shard::alone(&config, shutdown).unwrap();
    let key = order::proof("a.test", &DIGEST).unwrap();
    let _shown = shard.tls.challenges.show("a.test", key);
    for version in BOTH {
        let (near, far) = tokio::io::duplex(64);
        let peer = "192.0.2.1:1".parse().unwrap();
        let permit = shard.connections.take(None, || true).unwrap();
        let accepting = accept_tls(&shard, Rewind::new(far), peer, &permit);
        let tls = TlsConnector::from(Arc::new(client(version, &[alpn::ACME], Arc::default())));
        let validating = async {
            let name = ServerName::try_from("a.test").unwrap();
            let mut stream = tls.connect(name, near).await.unwrap();
            // What it says isn't answered.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            let mut said = Vec::new();
            let ended = timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await;
            let ended = ended.expect("it ends");
            assert!(ended.is_ok() && said.is_empty(), "{ended:?} {said:?}");
            assert_ne!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_1));
        };
        let (accepted, ()) = tokio::join!(accepting, validating);
        assert!(accepted.is_none());
    }
}
