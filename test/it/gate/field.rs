//! Fields that the gate sets and removes.

use ptth_test::{Ask, Dialect};

use super::World;

#[tokio::test]
async fn fields_are_set_and_removed_in_both_directions() {
    let gate = "[route.gate.request_headers]\nset = { x-env = 'staging', X-Mine = 'a b' }\nremove = ['x-internal', 'cookie']\n\
                [route.gate.response_headers]\nset = { strict-transport-security = 'max-age=1', x-own = '2' }\nremove = ['server']";
    let world = World::new("", gate).await;
    for dialect in Dialect::BOTH {
        let ask = Ask::get("/")
            .with("x-env", "production")
            .with("x-env", "again")
            .with("x_env", "by-cgi")
            .with("x-internal", "1")
            .with("x_internal", "2")
            .with("cookie", "a=1")
            .with("x-else", "kept");
        let answer = world.ask(dialect, &ask).await;
        assert_eq!(answer.text(), "fine");
        let seen = world.seen().pop().unwrap();
        assert_eq!((seen.values("x-env"), seen.values("x-mine")), (vec!["staging"], vec!["a b"]));
        for gone in ["x-internal", "x_internal", "x_env", "cookie"] {
            assert!(seen.values(gone).is_empty(), "{dialect:?} {gone}");
        }
        assert_eq!(seen.values("x-else"), ["kept"]);
        assert_eq!(answer.field("strict-transport-security"), "max-age=1");
        let own: Vec<_> = answer.fields.get_all("x-own").iter().collect();
        assert_eq!(own, ["2"]);
        assert_eq!(answer.field("server"), "");
    }
}
