//! The list of ALPN labels: what is read can be shown and read again, and is never a visitor's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptth_link::alpn::{H2, HTTP_1_1, display, parse_label, parse_labels};

fuzz_target!(|text: &str| {
    let Ok(labels) = parse_labels(text) else { return };
    assert!(!labels.is_empty());
    for label in &labels {
        assert!((1..=255).contains(&label.len()) && label != H2 && label != HTTP_1_1);
        let shown = display(label);
        assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{shown}");
        assert_eq!(parse_label(&shown).as_ref(), Ok(label));
    }
    let shown: Vec<_> = labels.iter().map(|label| display(label)).collect();
    assert_eq!(parse_labels(&shown.join(" , ")), Ok(labels));
});
