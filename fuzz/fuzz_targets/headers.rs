//! Fields that a stranger chose: whatever they are, the origin sees the same of us, and hygiene done
//! twice is hygiene done once. And what a trusted proxy says of him is passed on well-formed, or not at all.
//!
//! The input is lines of `name:value`.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use libfuzzer_sys::fuzz_target;
use ptth_link::forwarded::Forwarded;
use ptth_link::headers::{self, Origination, Statement};

const FROM: Origination<'_> = Origination {
    address: IpAddr::V6(Ipv6Addr::LOCALHOST),
    host: "example.test",
    scheme: &Scheme::HTTPS,
    said: None,
    version: "2",
};

/// Never passed on from a stranger, under either spelling.
const IDENTITY: [&str; 10] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
    "via",
    "client-cert",
    "client-cert-chain",
];

/// Of one hop.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What frames or routes, and so can't be taken away by naming it in Connection.
const KEPT: [&str; 2] = ["host", "content-length"];

fuzz_target!(|data: &[u8]| {
    let fields = read(data);
    let mut honest = HeaderMap::new();
    headers::request(&mut honest, &Statement::new(FROM));

    let mut request = fields.clone();
    headers::request(&mut request, &Statement::new(FROM));
    for name in request.keys().map(HeaderName::as_str) {
        let spelled = name.replace('_', "-");
        if IDENTITY.contains(&spelled.as_str()) || spelled.starts_with("2ptth-") {
            let ours: Vec<_> = honest.get_all(name).iter().collect();
            assert!(!ours.is_empty(), "{name} crossed");
            assert_eq!(request.get_all(name).iter().collect::<Vec<_>>(), ours, "{name}");
        }
    }
    for name in honest.keys() {
        assert_eq!(request.get_all(name).iter().count(), 1, "{name} was taken away");
    }
    one_hop(&fields, &request);
    twice(&request, |fields| headers::request(fields, &Statement::new(FROM)));

    trusted(&fields);

    let mut response = fields.clone();
    headers::response(&mut response);
    assert!(!response.keys().any(|name| name.as_str().starts_with("2ptth-")));
    one_hop(&fields, &response);
    twice(&response, headers::response);

    let mut trailers = fields.clone();
    headers::trailers(&mut trailers);
    for name in KEPT.into_iter().chain(IDENTITY).chain(["cookie", "authorization", "trailer", "te"])
    {
        assert!(!trailers.contains_key(name), "{name} in trailers");
    }
    twice(&trailers, headers::trailers);
});

/// What becomes of the same fields if a trusted proxy sent them: what is said on reads back as the same.
fn trusted(fields: &HeaderMap) {
    let proxy = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let trusts = |address: IpAddr| address.is_loopback();
    let said = Forwarded::read(fields, proxy, trusts);
    let address = said.visitor().expect("the proxy at least");
    assert!(said.chain().iter().skip(1).all(|hop| trusts(*hop)), "only the first is a stranger");
    let mut request = fields.clone();
    let statement = Statement::new(Origination { address, said: Some(&said), ..FROM });
    headers::request(&mut request, &statement);
    let hops = said.chain().len();
    for name in ["x-forwarded-for", "forwarded"] {
        let values: Vec<_> = request.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name}");
        assert_eq!(values[0].to_str().expect("text").split(", ").count(), hops, "{name}");
    }
    if hops < 31 {
        let again = Forwarded::read(&request, proxy, trusts);
        assert_eq!(again.chain().len(), hops + 1, "the proxy once more");
        assert_eq!(again.visitor(), Some(address));
        assert_eq!((again.port, &again.prefix), (said.port, &said.prefix));
    }
    let forwarded = request["forwarded"].clone();
    let host = request["x-forwarded-host"].clone();
    request.remove("x-forwarded-for");
    request.remove("x-forwarded-host");
    let other = Forwarded::read(&request, proxy, trusts);
    if hops < 31 {
        assert_eq!(other.visitor(), Some(address), "{forwarded:?} says the same");
        assert_eq!(other.host.as_deref(), host.to_str().ok(), "{forwarded:?} says the same");
    }
}

fn read(data: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next())
            && let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            fields.append(name, value);
        }
    }
    fields
}

fn one_hop(before: &HeaderMap, after: &HeaderMap) {
    for name in HOP_BY_HOP {
        assert!(!after.contains_key(name), "{name} crossed");
    }
    assert!(after.get_all("te").iter().all(|te| te == "trailers"));
    for name in KEPT {
        let values = |fields: &HeaderMap| fields.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(values(before), values(after), "{name}");
    }
}

fn twice(once: &HeaderMap, clean: impl Fn(&mut HeaderMap)) {
    let mut again = once.clone();
    clean(&mut again);
    assert_eq!(&again, once);
}
