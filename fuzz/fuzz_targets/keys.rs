//! A token file: no text may panic the reader, no error may quote it, and a key reads back as it is shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptth_link::token::{holds_secret, parse_keys};
use ptth_link::token::Token;

fuzz_target!(|text: &str| {
    let secret = holds_secret(text);
    match parse_keys(text) {
        Ok(keys) => {
            assert!(!keys.is_empty());
            for key in &keys {
                assert_eq!(parse_keys(&key.to_string()).as_deref(), Ok(&[*key][..]));
            }
            let shown: Vec<_> = keys.iter().map(ToString::to_string).collect();
            assert_eq!(parse_keys(&shown.join("\r\n")), Ok(keys), "as it is shown");
            assert!(!holds_secret(&shown.join("\n")));
        }
        Err(said) => {
            let line = said.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
            if let Some((line, _)) = line {
                let line: usize = line.parse().expect("a number");
                assert!(line > 0 && line <= text.split('\n').count());
            }
            for word in text.split_whitespace().filter(|word| word.len() > 20) {
                assert!(!said.contains(word), "the error quotes the file");
            }
        }
    }
    if let Ok(token) = Token::parse(text) {
        assert!(secret);
        let again = Token::parse(&token.reveal()).expect("what it revealed");
        assert_eq!(again.public(), token.public());
        assert!(!format!("{token:?}").contains(&token.reveal()), "Debug shows it");
    }
});
