//! Where exchanges are shown.

use super::*;

#[test]
fn the_page_of_exchanges_is_on_loopback_and_bounded() {
    let inspect =
        |line: &str, variables: &[(&str, &str)]| options(line, variables).map(|it| it.inspect);
    assert!(inspect("g 8080", &[]).unwrap().is_none());
    let usual = inspect("--inspect g 8080", &[]).unwrap().unwrap();
    assert_eq!(usual.at.unwrap().to_string(), "127.0.0.1:4040");
    let Limits { exchanges, body, bytes, .. } = usual.limits;
    assert_eq!((exchanges, body, bytes), (500, 1 << 20, 64 << 20));
    let variables = [
        ("INSPECT", "1"),
        ("INSPECT_AT", "[::1]:4041"),
        ("INSPECT_KEEP", "7"),
        ("INSPECT_BODY", "1KiB"),
        ("INSPECT_BYTES", "2KiB"),
        ("REDACT", "x-a, X-B"),
        ("CAPTURE", "/tmp/x"),
    ];
    let own = inspect("g 8080", &variables).unwrap().unwrap();
    let Limits { exchanges, body, bytes, redact } = own.limits;
    assert_eq!((exchanges, body, bytes, redact.len()), (7, 1 << 10, 2 << 10, 2));
    assert_eq!((own.at.unwrap().port(), own.capture), (4041, Some(PathBuf::from("/tmp/x"))));
    assert!(inspect("--capture x g 8080", &[]).unwrap().unwrap().at.is_none());
    for (line, why) in [
        ("--inspect-at 0.0.0.0:4040 g 8080", "loopback"),
        ("--inspect-at 192.168.0.1:4040 g 8080", "loopback"),
        ("--inspect-at unix:/x g 8080", "loopback"),
        ("--inspect-keep 0 g 8080", "a number from 1"),
        ("--inspect-body much g 8080", "a size"),
        ("--redact a=b,c:d g 8080", "names of fields"),
        // A visitor would reach the page.
        ("--inspect g 4040", "has the address of the origin"),
        ("--inspect g http://127.0.0.2:4040", "has the address of the origin"),
    ] {
        let refused = inspect(line, &[]).unwrap_err().to_string();
        assert!(refused.contains(why), "{line}: {refused}");
    }
}
