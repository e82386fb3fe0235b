//! What the gateway itself says: its own pages, and what it adds to those of others.

use ptth_test::{Backend, GatewayBox, H1, OriginBox};

const HOST: &str = "Host: example.test\r\n";

/// RFC 9110 §6.6.1
#[tokio::test]
async fn a_response_without_a_date_is_given_one_and_a_date_is_kept() {
    let gateway = GatewayBox::start();
    let own = H1::get(&gateway, "/").await;
    assert!(own.field("date").ends_with(" GMT"), "{own:?}");
    let _demo = Backend::demo(&gateway).await;
    let undated = H1::get(&gateway, "/").await;
    assert!(undated.field("date").ends_with(" GMT"), "{undated:?}");
    drop(_demo);
    gateway.until_tunnels(0).await;
    let origin = OriginBox::raw(|mut socket, _| async move {
        use tokio::io::AsyncWriteExt;
        ptth_test::origin::read_head(&mut socket).await;
        let dated =
            b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n";
        let _ = socket.write_all(dated).await;
    })
    .await;
    let _backend = Backend::of(&gateway, &origin).await;
    let dated = H1::get(&gateway, "/").await;
    assert_eq!(dated.field("date"), "Tue, 15 Nov 1994 08:12:31 GMT");
}

#[tokio::test]
async fn connect_is_refused_with_what_is_allowed() {
    let gateway = GatewayBox::start();
    let request = format!("CONNECT example.test:443 HTTP/1.1\r\n{HOST}\r\n");
    let answer = H1::ask(&gateway, request).await;
    assert_eq!(answer.status, 405);
    assert!(answer.field("allow").contains("GET"), "{answer:?}");
}

/// An error page names the leg and a request id, in the form that the visitor asked for.
#[tokio::test]
async fn a_page_is_text_html_or_json_and_carries_code_and_request_id() {
    let gateway = GatewayBox::start();
    let text = H1::get(&gateway, "/").await;
    assert_eq!(text.field("content-type"), "text/plain; charset=utf-8");
    assert!(text.text().contains("Request id: "), "{}", text.text());
    // What a script says in a browser, beside the type itself.
    let script =
        format!("GET / HTTP/1.1\r\n{HOST}Accept: application/json, text/plain, */*\r\n\r\n");
    assert_eq!(H1::ask(&gateway, script).await.field("content-type"), "application/problem+json");
    let request = format!("GET / HTTP/1.1\r\n{HOST}Accept: application/problem+json\r\n\r\n");
    let json = H1::ask(&gateway, request).await;
    assert_eq!(json.field("content-type"), "application/problem+json");
    assert!(
        json.text().starts_with("{\"title\":\"There is no upstream available\""),
        "{}",
        json.text()
    );
    assert!(json.text().contains("\"status\":502"), "{}", json.text());
    assert!(json.text().contains("\"code\":\"E-NO-BACKEND\""), "{}", json.text());
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let request = format!("GET / HTTP/1.1\r\n{HOST}Accept: {browser}\r\n\r\n");
    let html = H1::ask(&gateway, request).await;
    assert_eq!(html.field("content-type"), "text/html; charset=utf-8");
    assert!(html.text().contains("<li class=\"fault\">backend</li>"), "{}", html.text());
    for page in [&text, &html, &json] {
        let told = page.field("proxy-status");
        assert_eq!(told, "2ptth; error=destination_unavailable; details=\"E-NO-BACKEND\"");
    }
    let ids = [&text, &json]
        .map(|answer| answer.text().chars().filter(char::is_ascii_hexdigit).collect::<String>());
    assert_ne!(ids[0], ids[1]);
}
