//! Which route a request takes, as visitors see it.

use http::{HeaderValue, StatusCode};
use ptth_link::token::Token;
use ptth_server::config::NoBackend;
use ptth_test::routes::{backend, get, get_on, get_with, route, until_serving};
use ptth_test::{Dialect, GatewayBox, H2};

#[tokio::test]
async fn host_and_path_choose_the_backend_for_both_kinds_of_visitors() {
    let tokens: Vec<_> = (0..6).map(|_| Token::generate()).collect();
    let [exact, wild, deep, api, apiv2, literal] = [0, 1, 2, 3, 4, 5].map(|n| &tokens[n]);
    let gateway = GatewayBox::with(|config| {
        let mut routes = vec![
            route("exact", &["blog.test"], &[exact]),
            route("wild", &["*.blog.test"], &[wild]),
            route("deep", &["*.a.blog.test"], &[deep]),
            route("api", &["blog.test", "only.test"], &[api]),
            route("apiv2", &["blog.test"], &[apiv2]),
            route("literal", &["[2001:db8::1]", "192.0.2.1"], &[literal]),
        ];
        routes[3].path = "/api".to_owned();
        routes[4].path = "/api/v2".to_owned();
        routes[4].strip = true;
        config.routes = routes;
    });
    let _backends = [
        (backend(&gateway, exact, "exact"), until_serving(&gateway, "blog.test", 1).await),
        (backend(&gateway, wild, "wild"), until_serving(&gateway, "x.blog.test", 1).await),
        (backend(&gateway, deep, "deep"), until_serving(&gateway, "x.a.blog.test", 1).await),
        (backend(&gateway, literal, "literal"), until_serving(&gateway, "192.0.2.1", 1).await),
        (backend(&gateway, api, "api"), ()),
        (backend(&gateway, apiv2, "apiv2"), ()),
    ];
    for (n, name) in [(3, "api"), (4, "apiv2")] {
        let pool = gateway.registry.policy().routes()[n].pool.clone();
        ptth_test::soon(name, pool.until(|tunnels| tunnels.len() == 1)).await;
    }
    let table = [
        ("blog.test", "/", "exact blog.test /"),
        ("BLOG.Test", "/A", "exact /A"),
        ("blog.test:8443", "/", "exact /"),
        ("blog.test.", "/", "exact /"),
        ("x.blog.test", "/", "wild /"),
        ("x.y.blog.test", "/", "wild /"),
        ("a.blog.test", "/", "wild /"),
        ("x.A.blog.test.:443", "/", "deep /"),
        ("[2001:db8::1]", "/", "literal /"),
        ("[2001:DB8:0:0::1]:443", "/", "literal /"),
        ("192.0.2.1", "/", "literal /"),
        ("blog.test", "/api", "api /api"),
        ("blog.test", "/api/", "api /api/"),
        ("blog.test", "/api?q=1", "api /api?q=1"),
        ("blog.test", "/apix", "exact /apix"),
        ("blog.test", "/API", "exact /API"),
        ("blog.test", "/%61pi", "exact /%61pi"),
        ("blog.test", "//api", "exact //api"),
        ("blog.test", "/api/v2", "apiv2 / /api/v2"),
        ("blog.test", "/api/v2?q=1", "apiv2 /?q=1 /api/v2"),
        ("blog.test", "/api/v2/", "apiv2 / /api/v2"),
        ("blog.test", "/api/v2/api/v2/x%2Fy", "apiv2 /api/v2/x%2Fy /api/v2"),
        ("blog.test", "/api/v2//", "apiv2 // /api/v2"),
        ("blog.test", "/api/v20", "api /api/v20"),
        ("only.test", "/api", "api /api"),
    ];
    for dialect in Dialect::BOTH {
        for (host, path, expected) in table {
            // What a visitor says of prefixes reaches nobody.
            let forged = [("X-Forwarded-Prefix", "/forged")];
            let answer = get_with(dialect, &gateway, (host, path), &forged).await;
            let text = answer.text();
            let (name, rest) = expected.split_once(' ').expect("two words");
            let fits = text.starts_with(name) && text.ends_with(rest) && !text.contains("forged");
            assert!(fits, "{dialect:?} {host} {path}: {text:?}, not {expected:?}");
            let words =
                2 + expected.split(' ').skip(1).filter(|word| word.starts_with('/')).count();
            assert_eq!(text.split(' ').count(), words, "{text}");
        }
        for (host, path) in [("test", "/"), ("log.test", "/"), ("only.test", "/"), ("[::1]", "/")] {
            let answer = get_with(dialect, &gateway, (host, path), &[]).await;
            assert_eq!(answer.status, 404, "{dialect:?} {host} {path}");
            assert!(answer.text().contains("There is no such site here."), "{}", answer.text());
        }
    }
}

/// One connection, and so one TLS session and one address, with requests for two names in turn.
#[tokio::test]
async fn one_visitors_connection_serves_two_names_and_never_mixes_them() {
    let (a, b) = (Token::generate(), Token::generate());
    let gateway = GatewayBox::with(|config| {
        config.routes = vec![route("a", &["a.test"], &[&a]), route("b", &["b.test"], &[&b])];
    });
    let _a = backend(&gateway, &a, "a");
    let _b = backend(&gateway, &b, "b");
    until_serving(&gateway, "a.test", 1).await;
    until_serving(&gateway, "b.test", 1).await;
    let visitor = H2::connect(&gateway).await;
    for n in 0..100 {
        let path = format!("/{n}");
        let (one, other) = tokio::join!(
            get_on(&visitor, ("a.test", &path), &[]),
            get_on(&visitor, ("b.test", &path), &[])
        );
        assert_eq!(one.text(), format!("a a.test {path}"));
        assert_eq!(other.text(), format!("b b.test {path}"));
    }
}

#[tokio::test]
async fn a_route_without_a_backend_answers_as_it_is_told() {
    let token = Token::generate();
    let redirect = HeaderValue::from_static("https://status.test/down");
    let answers = [
        NoBackend::Status(StatusCode::NOT_FOUND),
        NoBackend::Status(StatusCode::BAD_GATEWAY),
        NoBackend::Status(StatusCode::SERVICE_UNAVAILABLE),
        NoBackend::Redirect(redirect),
    ];
    let gateway = GatewayBox::with(|config| {
        let routes = answers.into_iter().enumerate().map(|(n, no_backend)| {
            let host = format!("r{n}.test");
            let mut route = route(&format!("r{n}"), &[&host], &[&token]);
            route.no_backend = no_backend;
            route
        });
        config.routes = routes.collect();
    });
    for dialect in Dialect::BOTH {
        for (host, status) in
            [("r0.test", 404), ("r1.test", 502), ("r2.test", 503), ("r3.test", 307)]
        {
            let answer = get_with(dialect, &gateway, (host, "/x?y"), &[]).await;
            assert_eq!(answer.status, status, "{host}");
            assert_eq!(answer.field("retry-after"), if status == 503 { "1" } else { "" });
            let to = if status == 307 { "https://status.test/down" } else { "" };
            assert_eq!(answer.field("location"), to);
        }
    }
    let _backend = backend(&gateway, &token, "all");
    until_serving(&gateway, "r0.test", 1).await;
    for n in 0..4 {
        assert_eq!(get(&gateway, &format!("r{n}.test"), "/").await.0, 200);
    }
}
