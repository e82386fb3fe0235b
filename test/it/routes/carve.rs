//! Requests that wait while a reload gives a part of their route to another one.

use std::time::Duration;

use ptth_server::config::{Config, Hold};
use ptth_server::lab::Grant;
use ptth_server::lab::RouteId;
use ptth_test::Lab;
use ptth_test::routes::{Tell, grant};
use tokio::time::sleep;

use super::hold::{any, asking, who};

/// Hold: who waits for a backend of a wide route while a narrower one is added goes by that one, and to nobody
/// else's backend.
#[tokio::test(start_paused = true)]
async fn who_waits_goes_where_the_host_and_path_lead_by_then() {
    let wide = |config: &mut Config| {
        let mut all = any("all", "*.test");
        all.hold = Some(Hold { time: Duration::from_secs(100), requests: 100 });
        config.routes = vec![all];
    };
    for (host, path, strip, seen) in [
        ("a.test", "/", false, "own a.test /api/x"),
        ("*.test", "/api", false, "own a.test /api/x"),
        ("*.test", "/api", true, "own a.test /x /api"),
    ] {
        let mut lab = Lab::with(wide);
        let mut visitor = asking(&mut lab, "a.test", "/api/x").await;
        let mut other = asking(&mut lab, "b.test", "/x").await;
        sleep(Duration::from_secs(1)).await;
        lab.reload(|config| {
            wide(config);
            let mut own = any("own", host);
            (own.path, own.strip) = (path.to_owned(), strip);
            own.hold = Some(Hold { time: Duration::from_secs(100), requests: 100 });
            config.routes.push(own);
        });
        let _all = lab.serve_as(who("all"), vec![grant("*.test")], Tell("all"));
        assert_eq!(other.answer().await.text(), "all b.test /x");
        let site = RouteId::Host(host.parse().unwrap(), path.into());
        let _own = lab.serve_as(who("own"), vec![Grant::by_key(site)], Tell("own"));
        assert_eq!(visitor.answer().await.text(), seen);
    }
}
