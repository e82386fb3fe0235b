//! The first bytes of a trusted proxy's connection: no bytes may panic the reader, and what it decides of some
//! it doesn't take back when more come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptth_server::lab::proxied::{Beginning, beginning};

/// The longest header that is read.
const MOST: usize = 536;

fuzz_target!(|data: &[u8]| {
    let mut decided = None;
    for end in 0..=data.len().min(MOST + 64) {
        let now = beginning(&data[..end]);
        match now {
            Beginning::Header { length, source } => {
                assert!(length <= end.min(MOST));
                assert!(data.starts_with(b"PROXY ") || data.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
                if data.starts_with(b"PROXY ") {
                    assert!(data[..length].ends_with(b"\r\n") && length <= 107);
                    assert_eq!(data[..length].iter().filter(|byte| **byte == b'\n').count(), 1);
                } else {
                    // LOCAL tells of nobody.
                    assert!(source.is_none() || data[12] == 0x21);
                }
            }
            Beginning::Short => assert!(end < MOST, "nothing is waited for without end"),
            Beginning::Other | Beginning::Malformed => {}
        }
        match decided {
            Some(before) => assert_eq!(now, before, "at {end}"),
            None if now != Beginning::Short => decided = Some(now),
            None => {}
        }
    }
});
