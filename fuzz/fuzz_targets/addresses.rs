//! The client's addresses: what is read can be shown and read again as the same, and a host is one word.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptth_client::config::{Gateway, HostHeader, OriginAddress};

fuzz_target!(|text: &str| {
    if let Ok(gateway) = Gateway::parse(text) {
        one_word(&gateway.host);
        let host = if gateway.host.contains(':') {
            format!("[{}]", gateway.host)
        } else {
            gateway.host.clone()
        };
        let again = Gateway::parse(&format!("{host}:{}", gateway.port)).expect("as it is shown");
        assert_eq!((again.host, again.port), (gateway.host, gateway.port));
    }
    if let Ok(origin) = OriginAddress::parse(text) {
        one_word(&origin.authority());
        if let OriginAddress::Http { .. } | OriginAddress::Https { .. } = &origin {
            assert_eq!(OriginAddress::parse(&origin.to_string()).ok(), Some(origin));
        }
    }
    if let Ok(HostHeader::Value(value)) = HostHeader::parse(text) {
        one_word(&value);
        assert_eq!(HostHeader::parse(&value).ok(), Some(HostHeader::Value(value)));
    }
});

/// Nothing that could end a line, a host or a field.
fn one_word(host: &str) {
    assert!(!host.is_empty());
    assert!(host.chars().all(|c| !c.is_control() && !" \t/?#@,".contains(c)), "{host:?}");
}
