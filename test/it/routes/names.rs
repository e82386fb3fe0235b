//! Dynamic names: who asks for one, who gets it, and how visitors find it.

use http::{Request, Response};
use ptth_client::{Body, Stopped, config};
use ptth_link::token::Token;
use ptth_server::config::{Admission, Route, WhenTaken};
use ptth_test::lab::Function;
use ptth_test::peer::{GOAWAY, Peer};
use ptth_test::routes::*;
use ptth_test::{Backend, Dialect, GatewayBox, Hello, soon};

fn asking(gateway: &GatewayBox, token: &Token, name: &str) -> config::Config {
    let mut config = client(gateway, token);
    config.name = Some(name.to_owned());
    config
}

fn start(gateway: &GatewayBox, token: &Token, name: &'static str) -> Backend {
    Backend::start(asking(gateway, token, name), Tell(name))
}

const BOB: &str = "bob.tunnel.example.test";

/// Sub-domain and path at once; 404 before, and after.
#[tokio::test]
async fn a_name_is_found_by_subdomain_and_by_path_while_its_backend_is_there() {
    let (any, own) = (Token::generate(), Token::generate());
    let gateway = GatewayBox::with(|config| {
        let mut names = names(&[(&any, None), (&own, Some(&["ann", "eve"]))]);
        names.path_hosts = ["tunnel.example.test", "example.test"].map(str::to_owned).to_vec();
        config.names = Some(names);
    });
    assert_eq!(get(&gateway, BOB, "/").await.0, 404);
    let bob = start(&gateway, &any, "bob");
    let _ann = start(&gateway, &own, "ann");
    until_serving(&gateway, BOB, 1).await;
    until_serving(&gateway, "ann.tunnel.example.test", 1).await;
    let table = [
        (BOB, "/x?y", "bob bob.tunnel.example.test /x?y"),
        ("BOB.tunnel.example.test.:444", "/", "bob BOB.tunnel.example.test. /"),
        ("example.test", "/bob", "bob example.test / /bob"),
        ("example.test", "/bob?q=1", "bob example.test /?q=1 /bob"),
        ("tunnel.example.test", "/bob/bob/", "bob tunnel.example.test /bob/ /bob"),
        ("ann.tunnel.example.test", "/bob", "ann ann.tunnel.example.test /bob"),
        ("example.test", "/ann/", "ann example.test / /ann"),
    ];
    for dialect in Dialect::BOTH {
        for (host, path, expected) in table {
            let answer = get_with(dialect, &gateway, (host, path), &[]).await;
            assert_eq!(answer.text().to_lowercase(), expected.to_lowercase(), "{dialect:?}");
        }
        let nobody = [
            ("eve.tunnel.example.test", "/"),
            ("example.test", "/eve/"),
            ("example.test", "/Bob/"),
            ("example.test", "/bobby"),
            ("example.test", "/"),
            ("x.bob.tunnel.example.test", "/"),
            ("other.test", "/bob/"),
        ];
        for (host, path) in nobody {
            let answer = get_with(dialect, &gateway, (host, path), &[]).await;
            assert_eq!(answer.status, 404, "{dialect:?} {host} {path}");
        }
    }
    drop(bob);
    until_serving(&gateway, BOB, 0).await;
    assert_eq!(get(&gateway, BOB, "/").await.0, 404);
    assert_eq!(get(&gateway, "example.test", "/bob/").await.0, 404);
    assert_eq!(get(&gateway, "example.test", "/ann/").await.0, 200);
}

/// Codes of a program before this one: under a prefix, in either case, without a domain.
#[tokio::test]
async fn a_name_by_path_alone_is_taken_as_it_is_written() {
    let any = Token::generate();
    let gateway = GatewayBox::with(|config| {
        let mut names = names(&[(&any, None)]);
        names.domain = String::new();
        names.path_hosts = vec!["example.test".to_owned()];
        names.path_prefix = "/forward".to_owned();
        config.names = Some(names);
    });
    let upper = start(&gateway, &any, "EXAMPLE_TARGET");
    let _lower = start(&gateway, &any, "example_target");
    for path in ["/forward/EXAMPLE_TARGET", "/forward/example_target"] {
        let served = async { while get(&gateway, "example.test", path).await.0 != 200 {} };
        soon(path, served).await;
    }
    for dialect in Dialect::BOTH {
        for (path, expected) in [
            ("/forward/EXAMPLE_TARGET", "EXAMPLE_TARGET example.test / /forward/EXAMPLE_TARGET"),
            (
                "/forward/EXAMPLE_TARGET/x?y",
                "EXAMPLE_TARGET example.test /x?y /forward/EXAMPLE_TARGET",
            ),
            ("/forward/example_target/", "example_target example.test / /forward/example_target"),
        ] {
            let answer = get_with(dialect, &gateway, ("example.test", path), &[]).await;
            assert_eq!(answer.text(), expected, "{dialect:?}");
        }
        // What its own client asks for is no visitor's request.
        let pull = ("example.test", "/pull/EXAMPLE_TARGET");
        let answer = get_with(dialect, &gateway, pull, &[]).await;
        assert_eq!(answer.status, 400, "{dialect:?}");
        assert!(answer.text().contains("README's recipe"), "{}", answer.text());
        let shown = [("x-webhooktunnel-id", "alice")];
        let named = ("example.test", "/forward/EXAMPLE_TARGET");
        let answer = get_with(dialect, &gateway, named, &shown).await;
        assert_eq!(answer.status, 400, "{dialect:?}");
        assert!(answer.text().contains("webhooktunnel"), "{}", answer.text());
        for path in ["/EXAMPLE_TARGET", "/forward/Example_Target", "/forward", "/forward/..", "/"] {
            let answer = get_with(dialect, &gateway, ("example.test", path), &[]).await;
            assert_eq!(answer.status, 404, "{dialect:?} {path}");
        }
    }
    drop(upper);
    let gone =
        async { while get(&gateway, "example.test", "/forward/EXAMPLE_TARGET").await.0 != 404 {} };
    soon("its end", gone).await;
    assert_eq!(get(&gateway, "example.test", "/forward/example_target").await.0, 200);
}

/// Two backends with one secret, each for its own path of one host.
#[tokio::test]
async fn a_backend_serves_the_path_that_it_asks_for_and_no_other() {
    let token = Token::generate();
    let route = |path: &str| {
        let mut route = Route::new(path, vec!["example.test".parse().unwrap()]);
        route.path = path.to_owned();
        route
    };
    let gateway = GatewayBox::with(|config| {
        let keys = vec![token.public()];
        config.admission = Admission::Keys { keys, file: None, made: None };
        config.routes = ["/a", "/b", "/"].map(route).to_vec();
    });
    let serving = |path: &'static str| {
        let mut config = gateway.client_config();
        config.token = Some(token.clone());
        config.path = Some(path.to_owned());
        let service =
            Function(move |_: Request<Body>| async move { Response::new(path.to_owned()) });
        Backend::start(config, service)
    };
    let _backends = ["/a", "/b", "/"].map(serving);
    for (path, expected) in [("/a", "/a"), ("/b/x", "/b"), ("/c", "/")] {
        soon(path, async { while get(&gateway, "example.test", path).await.0 != 200 {} }).await;
        for _ in 0..8 {
            assert_eq!(get(&gateway, "example.test", path).await, (200, expected.to_owned()));
        }
    }
    let stopped = serving("/c").ended().await.expect_err("there is no such route");
    assert!(stopped.to_string().contains("the path \\\"/c\\\""), "{stopped}");
}

/// Where names share a host, none says anything to browsers for all of it; on its own host it may.
#[tokio::test]
async fn a_name_on_a_path_speaks_for_itself_alone() {
    let any = Token::generate();
    let gateway = GatewayBox::with(|config| {
        let mut names = names(&[(&any, None)]);
        names.path_hosts = vec!["example.test".to_owned()];
        config.names = Some(names);
    });
    let fields = [
        ("set-cookie", "a=1; Path=/; Domain=example.test"),
        ("set-cookie", "b=2; HttpOnly"),
        ("clear-site-data", "\"*\""),
        ("strict-transport-security", "max-age=1; includeSubDomains"),
        ("service-worker-allowed", "/"),
        ("x-own", "kept"),
    ];
    let service = Function(move |_: Request<Body>| {
        let response = fields.iter().fold(Response::builder(), |it, (n, v)| it.header(*n, *v));
        async move { response.body("ok".to_owned()).expect("a response") }
    });
    let _bob = Backend::start(asking(&gateway, &any, "bob"), service);
    until_serving(&gateway, BOB, 1).await;
    for dialect in Dialect::BOTH {
        let said = async |host, path| {
            let answer = get_with(dialect, &gateway, (host, path), &[]).await;
            let all = answer.fields.iter().map(|(name, value)| {
                (name.as_str().to_owned(), value.to_str().expect("text").to_owned())
            });
            let mut all: Vec<_> =
                all.filter(|(name, _)| fields.iter().any(|(known, _)| known == name)).collect();
            all.sort();
            all
        };
        let mut own = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        own.sort();
        assert_eq!(said(BOB, "/").await, own, "{dialect:?}");
        let confined = [
            ("set-cookie", "a=1; Path=/bob/"),
            ("set-cookie", "b=2; HttpOnly; Path=/bob/"),
            ("x-own", "kept"),
        ];
        let confined = confined.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(said("example.test", "/bob/").await, confined, "{dialect:?}");
    }
}

/// And says so to the client, which ends.
#[tokio::test]
async fn a_name_that_a_key_was_not_granted_is_refused() {
    let (any, own, none) = (Token::generate(), Token::generate(), Token::generate());
    let gateway = GatewayBox::with(|config| {
        config.names = Some(names(&[(&any, None), (&own, Some(&["ann"]))]));
        config.routes = vec![route("r", &["r.test"], &[&none])];
    });
    let _bob = start(&gateway, &any, "bob");
    until_serving(&gateway, BOB, 1).await;
    for token in [&own, &none] {
        let stopped = start(&gateway, token, "bob").ended().await.expect_err("a refusal");
        assert!(matches!(stopped, Stopped::Forbidden(_)), "{stopped:?}");
    }
    // Without a wish the one has its names, and the other its route.
    let (_ann, _r) = (backend(&gateway, &own, "ann"), backend(&gateway, &none, "r"));
    until_serving(&gateway, "ann.tunnel.example.test", 1).await;
    until_serving(&gateway, "r.test", 1).await;
    assert_eq!(get(&gateway, BOB, "/").await.1, "bob bob.tunnel.example.test /");
    // Nothing to serve, nothing asked for.
    let stopped = backend(&gateway, &any, "x").ended().await.expect_err("a refusal");
    assert!(matches!(stopped, Stopped::Forbidden(_)), "{stopped:?}");
}

/// A host that a route has isn't a name's, whatever paths the route leaves; and a route for every
/// host, or for a wider domain, leaves the names' domain to them.
#[tokio::test]
async fn a_route_comes_before_a_name_and_a_domain_before_a_wider_one() {
    let (any, own) = (Token::generate(), Token::generate());
    let gateway = GatewayBox::with(|config| {
        let mut part = route("part", &[BOB], &[&own]);
        part.path = "/api".to_owned();
        let mut path = route("path", &["tunnel.example.test"], &[&own]);
        path.path = "/ann".to_owned();
        let wide = route("wide", &["*", "*.example.test"], &[&own]);
        config.routes = vec![part, path, wide];
        config.names = Some(names(&[(&any, None)]));
    });
    let _own = backend(&gateway, &own, "own");
    until_serving(&gateway, "other.test", 1).await;
    let _bob = start(&gateway, &any, "bob");
    let _ann = start(&gateway, &any, "ann");
    until_serving(&gateway, "ann.tunnel.example.test", 1).await;
    assert_eq!(
        get(&gateway, "ann.tunnel.example.test", "/").await.1,
        "ann ann.tunnel.example.test /"
    );
    assert_eq!(
        get(&gateway, "tunnel.example.test", "/ann/").await.1,
        "own tunnel.example.test /ann/"
    );
    assert_eq!(get(&gateway, BOB, "/api").await.1, format!("own {BOB} /api"));
    assert_eq!(get(&gateway, BOB, "/").await.0, 404);
    assert_eq!(get(&gateway, "www.example.test", "/").await.1, "own www.example.test /");
    assert_eq!(get(&gateway, "nobody.tunnel.example.test", "/").await.0, 404);
}

/// Names are replaced by whoever may have them, unless the configuration says otherwise.
#[tokio::test]
async fn a_second_backend_of_a_name_replaces_the_first_and_tells_it() {
    let token = Token::generate();
    let gateway = GatewayBox::with(|config| config.names = Some(names(&[(&token, None)])));
    let first = start(&gateway, &token, "bob");
    until_serving(&gateway, BOB, 1).await;
    let _other = start(&gateway, &token, "ann");
    let _second = Backend::start(asking(&gateway, &token, "bob"), Tell("second"));
    let stopped = first.ended().await.expect_err("it was replaced");
    assert!(matches!(stopped, Stopped::Replaced), "{stopped:?}");
    until_serving(&gateway, BOB, 1).await;
    assert_eq!(get(&gateway, BOB, "/").await.1, format!("second {BOB} /"));
    until_serving(&gateway, "ann.tunnel.example.test", 1).await;
}

#[tokio::test]
async fn a_name_may_keep_its_first_backend_or_share_the_load() {
    for (policy, tunnels) in [(WhenTaken::Reject, 1), (WhenTaken::Balance, 2)] {
        let token = Token::generate();
        let gateway = GatewayBox::with(|config| {
            let mut names = names(&[(&token, None)]);
            names.route.when_taken = policy;
            config.names = Some(names);
        });
        let _first = start(&gateway, &token, "bob");
        until_serving(&gateway, BOB, 1).await;
        let second = Backend::start(asking(&gateway, &token, "bob"), Tell("second"));
        if policy == WhenTaken::Reject {
            let stopped = second.ended().await.expect_err("a refusal");
            assert!(matches!(stopped, Stopped::Taken), "{stopped:?}");
        } else {
            until_serving(&gateway, BOB, tunnels).await;
        }
        assert_eq!(get(&gateway, BOB, "/").await.0, 200);
    }
}

/// Another program's certificate may have anything there, of which a gateway without names knows
/// nothing; and what is no name is none.
#[tokio::test]
async fn an_odd_organizational_unit_does_not_keep_a_key_from_its_route() {
    let token = Token::generate();
    for with_names in [false, true] {
        let gateway = GatewayBox::with(|config| {
            config.routes = vec![route("r", &["r.test"], &[&token])];
            config.names = with_names.then(|| names(&[(&token, None)]));
        });
        let mut params = rcgen::CertificateParams::default();
        let unit = rcgen::DnType::OrganizationalUnitName;
        params.distinguished_name.push(unit, if with_names { "IT & Co" } else { "dev" });
        let (_, private) = token.certificate("x", []).unwrap();
        let pair = rcgen::KeyPair::try_from(&private).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let hello = Hello::offering(&[b"2ptth"]).showing(vec![certificate.into()], private);
        let stream = hello.connect(gateway.address).await.unwrap();
        let mut peer = Peer::answering(stream, &[]).await;
        let reading = async {
            while let Some(frame) = peer.next().await {
                assert_ne!(frame.kind, GOAWAY);
            }
        };
        tokio::select! {
            () = until_serving(&gateway, "r.test", 1) => {}
            () = reading => panic!("it was refused"),
        }
    }
}
