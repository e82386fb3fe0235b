//! The header of the PROXY protocol (versions 1 and 2, proxy-protocol.txt of HAProxy), with which a proxy that
//! passes bytes through names their sender.
//!
//! Invariant: it is looked for on connections of trusted proxies alone. From any other peer such bytes are a
//! broken ClientHello, or a broken request.

use std::io;
use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncRead;

use super::rewind::Rewind;
use crate::config::ProxyProtocol;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Beginning {
    /// Too few to tell.
    Short,
    /// Something else than a header.
    Other,
    /// A header of `length` bytes.
    Header {
        /// Its length.
        length: usize,
        /// The visitor; `None` if the proxy speaks for itself (LOCAL, UNKNOWN).
        source: Option<SocketAddr>,
    },
    /// What begins as a header and isn't one, or is too long.
    Malformed,
}

/// Looks at the first bytes of a connection. Pure.
pub fn beginning(bytes: &[u8]) -> Beginning {
    let versions = [(V1, V1_MOST), (V2, V2_MOST)];
    let fits = |(mark, _): &(&[u8], _)| bytes.iter().zip(*mark).all(|(byte, other)| byte == other);
    let Some((mark, most)) = versions.into_iter().find(fits) else { return Beginning::Other };
    if bytes.len() < mark.len() {
        return Beginning::Short;
    }
    if let (V2, Some(&[high, low])) = (mark, bytes.get(V2_LENGTH)) {
        // What is too long isn't waited for.
        if usize::from(u16::from_be_bytes([high, low])) > most - V2_LENGTH.end {
            return Beginning::Malformed;
        }
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(bytes.get(..most).unwrap_or(bytes), config) {
        Ok((header, length)) => match header.proxied_address() {
            None => Beginning::Header { length, source: None },
            Some(address) if address.protocol == Protocol::Stream => {
                Beginning::Header { length, source: Some(address.source) }
            }
            Some(_) => Beginning::Malformed,
        },
        Err(Error::BufferTooShort) if bytes.len() < most => Beginning::Short,
        Err(_) => Beginning::Malformed,
    }
}

/// The peer behind a trusted proxy's connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// The proxy: it sent no header, and so speaks for itself.
    Proxy,
    Visitor(SocketAddr),
    /// Not known: the header says LOCAL, UNKNOWN or a Unix socket.
    Unknown,
}

/// Takes the header off a trusted proxy's connection, and returns the peer that it names. To be put under a deadline.
/// Cancel safe.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where the settings of the proxy and of the gateway contradict each other.
pub(super) async fn source<T: AsyncRead + Unpin>(
    io: &mut Rewind<T>,
    mode: ProxyProtocol,
) -> io::Result<Source> {
    let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let malformed = "its PROXY header is malformed";
    if mode == ProxyProtocol::Off {
        return Ok(Source::Proxy);
    }
    let mut came = io.look(V2_MOST).await?;
    loop {
        match beginning(io.seen()) {
            Beginning::Header { length, source } => {
                io.skip(length);
                return Ok(source.map_or(Source::Unknown, |source| {
                    Source::Visitor(SocketAddr::new(source.ip().to_canonical(), source.port()))
                }));
            }
            Beginning::Malformed => return invalid(malformed),
            Beginning::Other if mode == ProxyProtocol::Required => {
                return invalid("it sent no PROXY header");
            }
            Beginning::Other => return Ok(Source::Proxy),
            // The proxy only looked whether the port is open.
            Beginning::Short if came == 0 && io.seen().is_empty() => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed at once"));
            }
            Beginning::Short if came == 0 => return invalid(malformed),
            Beginning::Short => came = io.look(V2_MOST).await?,
        }
    }
}

/// How version 1 begins, and its longest header with its line's end (proxy-protocol.txt §2.1).
const V1: &[u8] = b"PROXY ";
const V1_MOST: usize = 107;
/// How version 2 begins (§2.2), and what fits into the smallest segment that every host takes, which is what
/// senders promise to stay in (§2).
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_MOST: usize = 536;
/// Where it says how long the rest of it is.
const V2_LENGTH: std::ops::Range<usize> = 14..16;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    /// 203.0.113.9:4711 to 192.0.2.1:443.
    const V4: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb];

    fn is(bytes: &[u8], source: Option<&str>) {
        let source = source.map(|source| source.parse().unwrap());
        let expected = Beginning::Header { length: bytes.len(), source };
        assert_eq!(beginning(bytes), expected, "{bytes:?}");
        let more = [bytes, b"\x16\x03\x01 and so on"].concat();
        assert_eq!(beginning(&more), expected, "what follows isn't its");
        for end in 0..bytes.len() {
            assert_eq!(beginning(&bytes[..end]), Beginning::Short, "{end} of {bytes:?}");
        }
    }

    #[test]
    fn both_versions_are_read() {
        is(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", Some("203.0.113.9:4711"));
        is(b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n", Some("[2001:db8::9]:4711"));
        is(b"PROXY UNKNOWN\r\n", None);
        is(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
        is(&v2(0x21, 0x11, &V4), Some("203.0.113.9:4711"));
        let with_fields = [&V4[..], &[3, 0, 4, 1, 2, 3, 4, 0xee, 0, 1, 0]].concat();
        is(&v2(0x21, 0x11, &with_fields), Some("203.0.113.9:4711"));
        // LOCAL keeps the socket's address, whatever else it says.
        is(&v2(0x20, 0x11, &V4), None);
        is(&v2(0x20, 0, &[]), None);
        is(&v2(0x21, 0, &[]), None);
        let mut v6 = [0; 36];
        (v6[15], v6[32], v6[33]) = (1, 0x12, 0x67);
        is(&v2(0x21, 0x21, &v6), Some("[::1]:4711"));
    }

    #[test]
    fn malformed_and_endless_headers_are_refused() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        let bad: Vec<Vec<u8>> = vec![
            b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 99999\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 ::1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 evil 192.0.2.1 4711 443\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.9 192.0.2.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\rx".to_vec(),
            long.into_bytes(),
            v2(0x31, 0x11, &V4),
            v2(0x22, 0x11, &V4),
            v2(0x21, 0x41, &V4),
            v2(0x21, 0x12, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x11, &[0; 600]),
        ];
        assert_eq!(beginning(&v2(0x21, 0x11, &[0; 521])[..16]), Beginning::Malformed);
        assert_eq!(beginning(&v2(0x21, 0x11, &[0; 520])[..16]), Beginning::Short);
        for mut bytes in bad {
            // Some show only when more comes than their own length.
            bytes.extend_from_slice(&[b'x'; V2_MOST]);
            assert_eq!(beginning(&bytes), Beginning::Malformed, "{bytes:?}");
        }
        let others: [&[u8]; 6] =
            [b"\x16\x03\x01", b"GET / ", b"PRI * ", b"PROXX", b"PROPFIND /", b"\r\n\r\nGET"];
        for bytes in others {
            assert_eq!(beginning(bytes), Beginning::Other, "{bytes:?}");
        }
    }

    /// Over a pipe that tears everything apart.
    #[tokio::test]
    async fn what_follows_a_header_is_left_whole() {
        for header in [&b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"[..], &v2(0x21, 0x11, &V4)]
        {
            for mode in [ProxyProtocol::Optional, ProxyProtocol::Required] {
                let (mut near, far) = duplex(5);
                let mut io = Rewind::new(far);
                let sent = [header, b"\x16rest"].concat();
                let write = async {
                    near.write_all(&sent).await.unwrap();
                    drop(near);
                };
                let read = async {
                    let found = source(&mut io, mode).await.unwrap();
                    assert_eq!(found, Source::Visitor("203.0.113.9:4711".parse().unwrap()));
                    let mut rest = Vec::new();
                    io.read_to_end(&mut rest).await.unwrap();
                    assert_eq!(rest, b"\x16rest");
                };
                tokio::join!(write, read);
            }
        }
    }

    #[tokio::test]
    async fn each_mode_does_what_it_says() {
        let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
        let hello = b"\x16\x03\x01hello";
        type Row<'a> = (ProxyProtocol, &'a [u8], Result<Option<&'a str>, &'a str>, &'a [u8]);
        for unknown in [&b"PROXY UNKNOWN\r\n"[..], &v2(0x20, 0, b""), &v2(0x21, 0x31, &[b'/'; 216])]
        {
            let found = source(&mut Rewind::new(unknown), ProxyProtocol::Optional).await;
            assert_eq!(found.unwrap(), Source::Unknown, "{unknown:?}");
        }
        let cases: [Row<'_>; 8] = [
            (ProxyProtocol::Off, header, Ok(None), header),
            (ProxyProtocol::Off, hello, Ok(None), hello),
            (ProxyProtocol::Optional, header, Ok(Some("203.0.113.9:4711")), b""),
            (ProxyProtocol::Optional, hello, Ok(None), hello),
            (ProxyProtocol::Optional, b"PROX", Err("its PROXY header is malformed"), b"PROX"),
            (ProxyProtocol::Required, hello, Err("it sent no PROXY header"), hello),
            (ProxyProtocol::Required, b"", Err("it closed at once"), b""),
            (
                ProxyProtocol::Required,
                b"PROXY x\r\n",
                Err("its PROXY header is malformed"),
                b"PROXY x\r\n",
            ),
        ];
        for (mode, bytes, expected, rest) in cases {
            let mut io = Rewind::new(bytes);
            let found = source(&mut io, mode).await.map_err(|refused| refused.to_string());
            let visitor = |source: &str| Source::Visitor(source.parse().unwrap());
            let expected = expected.map(|source| source.map_or(Source::Proxy, visitor));
            assert_eq!(found, expected.map_err(str::to_owned), "{mode:?} {bytes:?}");
            let mut left = Vec::new();
            io.read_to_end(&mut left).await.unwrap();
            assert_eq!(left, rest, "{mode:?} {bytes:?}");
        }
    }
}
