//! Decides what a freshly accepted TLS connection is.
//!
//! In:  the side that the handshake took, and the ALPN protocol that both agreed on, if any.
//! Out: a [`Peer`]. Pure: no I/O happens here.
//!
//! Invariant: a peer becomes a tunnel only by asking for it by name. rustls already refused every
//! peer that offered ALPN without a protocol of ours, so `None` means that it offered nothing.

use ptth_link::alpn;

/// Who a ClientHello comes from, by what it asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Wants HTTP/2 or HTTP/1.1, or is too old to say.
    Visitor,
    /// Wants to be asked. Not proven yet.
    Backend,
    /// Validates a name for which an order of ours is under way (RFC 8737).
    Challenge,
}

/// What is on the other end of a connection, and what it speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// A backend: it dialled us, and from here on it answers our requests.
    Backend,
    /// A visitor speaking HTTP/1.1, or one too old for ALPN.
    VisitorH1,
    /// A visitor speaking HTTP/2.
    VisitorH2,
    /// The server that validates one of our names. The handshake was all that it wanted.
    Validator,
}

impl Peer {
    /// The one match that makes this 2ptth.
    pub fn of(side: Side, protocol: Option<&[u8]>) -> Self {
        match (side, protocol) {
            (Side::Backend, Some(_)) => Self::Backend,
            (Side::Challenge, _) => Self::Validator,
            (Side::Visitor, Some(protocol)) if protocol == alpn::H2 => Self::VisitorH2,
            _ => Self::VisitorH1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_one_by_name_only() {
        for (side, protocol, peer) in [
            (Side::Backend, Some(&b"2ptth"[..]), Peer::Backend),
            (Side::Backend, Some(b"\xd5\x87\xc9\xa5"), Peer::Backend),
            (Side::Backend, None, Peer::VisitorH1),
            (Side::Visitor, Some(b"h2"), Peer::VisitorH2),
            (Side::Visitor, Some(b"http/1.1"), Peer::VisitorH1),
            (Side::Visitor, None, Peer::VisitorH1),
            (Side::Visitor, Some(b"acme-tls/1"), Peer::VisitorH1),
            (Side::Challenge, Some(b"acme-tls/1"), Peer::Validator),
            (Side::Challenge, None, Peer::Validator),
        ] {
            assert_eq!(Peer::of(side, protocol), peer, "{side:?} {protocol:?}");
        }
    }
}
