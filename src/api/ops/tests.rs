//! The four pages, over a tree that is not started.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::api::admin::house::TestHouse;

struct Got {
    status: u16,
    kind: String,
    text: String,
}

async fn get(router: &Router, path: &str, token: Option<&str>) -> Got {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let header = |name: &str| {
        let value = answer.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let (status, kind) = (answer.status().as_u16(), header("content-type"));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Got {
        status,
        kind,
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

#[tokio::test]
async fn each_page_says_what_it_should_in_the_type_it_should() {
    let house = TestHouse::new().await;
    let options = Options {
        isolates: Some(Which::Top(5)),
        ..Options::default()
    };
    let router = router(house.control().ops(), options);
    let live = get(&router, "/livez", None).await;
    assert_eq!((live.status, live.text.as_str()), (200, "ok\n"));
    let ready = get(&router, "/readyz", None).await;
    assert_eq!((ready.status, ready.text.as_str()), (200, "ok\n"));
    let verbose = get(&router, "/readyz?verbose", None).await;
    assert!(verbose.text.contains("[+] audit ok"), "{}", verbose.text);
    assert!(!verbose.text.contains("[!]"), "{}", verbose.text);
    let exact = "text/plain; version=0.0.4; charset=utf-8";
    for path in ["/metrics", "/metrics/isolates"] {
        let page = get(&router, path, None).await;
        assert_eq!((page.status, page.kind.as_str()), (200, exact), "{path}");
        assert!(page.text.starts_with("# HELP legation_"), "{}", page.text);
    }
    let none = get(&router, "/secrets", None).await;
    assert_eq!(none.status, 404);
    assert!(none.text.contains("/metrics/isolates"), "{}", none.text);
    house.into_actions().await;
    let drained = get(&router, "/readyz?verbose", None).await;
    assert_eq!(drained.status, 503);
    assert!(
        drained.text.contains("[-] running failed"),
        "{}",
        drained.text
    );
    assert_eq!(
        get(&router, "/livez", None).await.status,
        200,
        "it still answers"
    );
}

#[tokio::test]
async fn a_token_guards_numbers_and_reasons_but_not_probes() {
    const TOKEN: &str = "a-token-of-some-length";
    let house = TestHouse::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let options = Options {
        token: Some(Token::load(&file).unwrap()),
        ..Options::default()
    };
    let router = router(house.control().ops(), options);
    for path in ["/metrics", "/metrics/isolates", "/readyz?verbose"] {
        for wrong in [None, Some("another-token-of-it"), Some("")] {
            let refused = get(&router, path, wrong).await;
            assert_eq!(refused.status, 401, "{path} {wrong:?}");
            assert!(refused.text.contains("E0551"), "{}", refused.text);
        }
    }
    assert_eq!(get(&router, "/metrics", Some(TOKEN)).await.status, 200);
    let off = get(&router, "/metrics/isolates", Some(TOKEN)).await;
    assert_eq!(off.status, 404, "the page is off");
    for probe in ["/livez", "/readyz"] {
        assert_eq!(get(&router, probe, None).await.status, 200);
    }
    house.into_actions().await;
}
