//! One order, from the name to the certificate (RFC 8555 §7.4), validated by TLS-ALPN-01 (RFC 8737).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use ptth_link::crypto;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::tls::Challenges;

/// The key and the chain, PEM. `replaces`: the certificate in whose place the new one comes (RFC 9773 §5).
pub(super) async fn issue(
    account: &Account,
    name: &str,
    replaces: Option<CertificateIdentifier<'static>>,
    challenges: &Challenges,
) -> Result<String, Error> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut wanted = NewOrder::new(&identifiers);
    if let Some(replaces) = replaces {
        wanted = wanted.replaces(replaces);
    }
    let mut order = account.new_order(&wanted).await?;
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // One of an earlier order may still count.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or(Error::Unsupported("TLS-ALPN-01 (RFC 8737)"))?;
        let key = proof(name, challenge.key_authorization().digest().as_ref());
        shown.push(challenges.show(name, key.map_err(|err| Error::Other(err.into()))?));
        challenge.set_ready().await?;
    }
    let ready = order.poll_ready(&PATIENCE).await;
    drop(shown);
    match ready {
        Ok(OrderStatus::Ready) => {}
        // The challenge has better words than the order.
        ready => {
            let why = refusal(&mut order).await;
            return Err(why.or(ready.err()).unwrap_or(Error::Str("no reason is given")));
        }
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(key + &chain)
}

/// What the directory says against the name.
async fn refusal(order: &mut Order) -> Option<Error> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        if let Some(why) = state.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            return Some(Error::Api(why));
        }
    }
    None
}

/// The self-signed certificate that a validator wants to see: the name and the digest, and nothing else (RFC 8737 §3).
pub(super) fn proof(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let certificate = || {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>((params.self_signed(&key)?, key))
    };
    let (certificate, key) = certificate().map_err(|err| err.to_string())?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = crypto::provider().key_provider.load_private_key(key);
    let key = key.map_err(|err| err.to_string())?;
    // Not `from_der`, which refuses the critical extension.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// A validation takes seconds, a few of them if it comes from many places.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(60));
