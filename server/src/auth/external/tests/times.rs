//! How long an authorizer may take, as it is written.

use super::*;

#[test]
fn times_are_written_in_several_ways() {
    let read = |value: Value| serde_json::from_value::<As<Seconds>>(value).map(|As(read)| read.0);
    let millis = |n| Duration::from_millis(n);
    for (value, expected) in [
        (json!("5s"), millis(5000)),
        (json!(" 0.5 s "), millis(500)),
        (json!("250ms"), millis(250)),
        (json!("1m"), millis(60_000)),
        (json!("7"), millis(7000)),
        (json!(7), millis(7000)),
        (json!(1.5), millis(1500)),
    ] {
        assert_eq!(read(value.clone()).unwrap(), expected, "{value}");
    }
    for bad in [
        json!("0s"),
        json!(0),
        json!(-1),
        json!("61s"),
        json!("2m"),
        json!("1h"),
        json!("s"),
        json!(""),
        json!("é"),
        json!("1e1s"),
        json!("+5s"),
        json!(1e300),
        json!("1.2.3s"),
    ] {
        let error = read(bad.clone()).unwrap_err().to_string();
        assert!(error.contains("up to 60 seconds"), "{bad}: {error}");
    }
}
