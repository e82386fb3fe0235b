//! What a backend shows as Authorization: no bytes may panic who reads it, let anybody in, or take a
//! second spelling for the same.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use ptth_server::lab::{Claim, Credential, Files, Refusal, Settings, authorization};

/// One of each kind that decides by itself. Nobody can guess their secrets.
static KINDS: LazyLock<Vec<Arc<dyn Credential>>> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("2ptth-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let secret = ptth_link::crypto::hex(&ptth_link::crypto::random::<32>());
    std::fs::write(folder.join("secret"), secret).expect("a file");
    let mut files = Files::new(&folder);
    let kinds = [
        r#"{ "bearer_file": "secret" }"#,
        r#"{ "basic": { "user": "bob", "password_file": "secret" } }"#,
        r#"{ "jwt": { "hs256_files": ["secret"], "audience": "x", "name_claim": "tid" } }"#,
    ];
    let made = kinds.map(|json| {
        let settings: Settings = serde_json::from_str(json).expect("a kind");
        settings.load(&mut files).expect("a credential")
    });
    std::fs::remove_dir_all(&folder).ok();
    made.into()
});

fuzz_target!(|data: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let bearer = authorization::bearer(&value);
    let basic = authorization::basic(&value);
    assert!(bearer.is_none() || basic.is_none(), "it is of two kinds");
    if let Some(token) = bearer {
        assert!(!token.is_empty() && token.iter().all(u8::is_ascii_graphic));
        let plain = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).expect("a value");
        assert_eq!(authorization::bearer(&plain), Some(token));
    }
    if let Some((user, _)) = basic {
        assert!(!user.contains(&b':'));
    }
    let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let claim = Claim { key: None, chain: &[], authorization: Some(&value), address, hosts: &[], name: None };
    for kind in KINDS.iter() {
        let checking = std::pin::pin!(kind.check(&claim));
        match checking.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(Refusal::Absent | Refusal::Wrong(_))) => {}
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => panic!("it waits for something"),
        }
    }
});
