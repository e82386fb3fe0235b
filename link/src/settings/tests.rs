//! Declarations, the order of sources, and what is said of wrong values.

use super::*;

#[cfg(unix)]
#[test]
fn bytes_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let env = |_: &str| Some(OsString::from_vec(vec![0xff]));
    let error = variable(&env, "LOG", false).unwrap_err();
    assert_eq!(error.to_string(), "the variable LOG isn't UTF-8 text");
}

fn env(name: &str) -> Option<OsString> {
    let value = match name {
        "EMPTY" => "",
        "BLANK" => " \n",
        "TEXT" => "text",
        "ON" => "True",
        "OFF" => "0",
        _ => return None,
    };
    Some(value.into())
}

#[test]
fn empty_is_unset_but_for_secrets() {
    assert_eq!(variable(&env, "UNSET", false), Ok(None));
    assert_eq!(variable(&env, "EMPTY", false), Ok(None));
    assert_eq!(variable(&env, "TEXT", false), Ok(Some("text".into())));
    assert_eq!(variable(&env, "UNSET", true), Ok(None));
    assert_eq!(variable(&env, "TEXT", true), Ok(Some("text".into())));
    for name in ["EMPTY", "BLANK"] {
        let error = variable(&env, name, true).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the variable {name} is set but empty; give it a value or unset it")
        );
    }
}

const SETTINGS: &[Setting] = &[
    Setting { name: "on", variable: "ON", marks: &[Mark::Switch] },
    Setting { name: "off", variable: "OFF", marks: &[Mark::Switch] },
    Setting { name: "text", variable: "TEXT", marks: &[Mark::Switch] },
    Setting { name: "unset", variable: "UNSET", marks: &[Mark::Switch] },
];

#[test]
fn switches_are_on_off_or_refused() {
    let mistakes = Mistakes::default();
    let sources = Sources {
        settings: SETTINGS,
        flags: Flags::new(),
        env: &env,
        tables: vec![],
        mistakes: &mistakes,
    };
    assert!(sources.switch("on") && !sources.switch("off") && !sources.switch("unset"));
    assert!(mistakes.is_empty());
    assert!(!sources.switch("text"));
    let error = mistakes.end().unwrap_err().to_string();
    assert_eq!(error, "TEXT \"text\" must be 1 or 0");
    let near: Vec<_> =
        sources.nearest(&["on", "off", "unset"]).into_iter().map(|it| it.0).collect();
    assert_eq!(near, ["on"]);
}
