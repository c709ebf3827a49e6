//! The admin API over a real store: what an operator does in their first hour, and what is
//! refused.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::house::TestHouse;
use super::{About, router};
use crate::api::peer::PeerCred;

pub(super) struct World(pub(super) TestHouse);

impl World {
    async fn new() -> Self {
        Self(TestHouse::new().await)
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = router(self.0.control(), About::default())
            .oneshot(request)
            .await
            .unwrap();
        let status = answer.status();
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        let problem = !status.is_success();
        assert_eq!(kind.contains("problem+json"), problem, "{status} {kind}");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        let bytes = if body.is_null() {
            Body::empty()
        } else {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        };
        let mut request = request.body(bytes).unwrap();
        request.extensions_mut().insert(root());
        let (status, answer) = self.send(request).await;
        (status.as_u16(), answer)
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, body).await
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, Value::Null).await
    }

    /// A published mcp `echo`, granted to `dev`, with `ada` in it.
    async fn furnished() -> Self {
        let world = Self::new().await;
        for (path, body) in [
            ("/v1/users", json!({"name": "ada"})),
            ("/v1/groups", json!({"name": "dev"})),
            (
                "/v1/mcps",
                json!({"name": "echo", "program": {"command": "cat"}}),
            ),
            ("/v1/mcps/echo/publish", Value::Null),
            ("/v1/groups/dev/members", json!({"user": "ada"})),
            ("/v1/groups/dev/grants", json!({"mcp": "echo"})),
        ] {
            let (status, answer) = world.post(path, body).await;
            assert!(status < 300, "{path}: {answer}");
        }
        world
    }
}

fn root() -> PeerCred {
    PeerCred {
        uid: 0,
        gid: 0,
        pid: None,
    }
}

#[tokio::test]
async fn a_first_hour_ends_with_a_key_that_sees_tools() {
    let world = World::furnished().await;
    let (status, made) = world
        .post("/v1/keys", json!({"user": "ada", "label": "laptop"}))
        .await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["subscribed"], json!(["echo"]));
    assert_eq!(made["not_subscribed"], json!([]));
    assert!(!made["secret"].as_str().unwrap().is_empty());
    assert!(
        made["key"].get("digest").is_none(),
        "never leaves the store: {made}"
    );

    let secret = made["secret"].as_str().unwrap();
    assert_eq!(world.0.tools_seen_with(secret).await, 1, "at once");
    let (_, seen) = world.get("/v1/subscriptions").await;
    assert_eq!(seen[0]["tools"], json!(["echo"]));
    assert_eq!(seen[0]["user"], "ada");
    let (_, keys) = world.get("/v1/keys?user=ada").await;
    assert_eq!(keys[0]["state"], "active");
    assert_eq!(keys[0]["subscriptions"], 1);
    let (_, groups) = world.get("/v1/groups").await;
    assert_eq!(groups[0]["members"], json!(["ada"]));
    assert_eq!(groups[0]["grants"], json!(["echo"]));
    let (_, mcps) = world.get("/v1/mcps").await;
    assert_eq!(mcps[0]["state"], "published");
    assert_eq!(mcps[0]["tool_count"], 1);
}

#[tokio::test]
async fn publishing_discovers_once_and_refuses_what_has_no_tools() {
    let world = World::new().await;
    world
        .post(
            "/v1/mcps",
            json!({"name": "good", "program": {"command": "cat"}}),
        )
        .await;
    world
        .post(
            "/v1/mcps",
            json!({"name": "bad", "program": {"command": "false"}}),
        )
        .await;
    let (_, first) = world.post("/v1/mcps/good/publish", Value::Null).await;
    assert_eq!(first["discovery"]["tools"][0]["name"], "echo");
    let (status, second) = world.post("/v1/mcps/good/publish", Value::Null).await;
    assert_eq!((status, &second["discovery"]), (200, &Value::Null));

    let (status, problem) = world.post("/v1/mcps/bad/publish", Value::Null).await;
    assert_eq!(status, 502, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("not published") && detail.contains("last stderr: no token"),
        "{detail}"
    );
    let (_, shown) = world.get("/v1/mcps/bad").await;
    assert_eq!(shown["state"], "draft");
}

#[tokio::test]
async fn a_subscription_needs_a_grant_and_says_which() {
    let world = World::furnished().await;
    world
        .post(
            "/v1/mcps",
            json!({"name": "other", "program": {"command": "cat"}}),
        )
        .await;
    let (_, made) = world
        .post("/v1/keys", json!({"user": "ada", "subscribe": false}))
        .await;
    assert_eq!(made["subscribed"], json!([]));
    let id = made["key"]["id"].as_str().unwrap().to_owned();
    let short: String = id.chars().take(9).collect();

    let (status, problem) = world
        .post("/v1/subscriptions", json!({"key": short, "mcp": "other"}))
        .await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["next"], "legation group grant dev other");
    assert_eq!(problem["code"], "conflict");

    let (status, done) = world
        .post("/v1/subscriptions", json!({"key": short, "mcp": "echo"}))
        .await;
    assert_eq!(
        (status, &done["tools"][0]["exposed"]),
        (201, &json!("echo"))
    );
    let path = format!("/v1/subscriptions/{id}/echo");
    let (_, gone) = world.ask(Method::DELETE, &path, Value::Null).await;
    assert_eq!(gone, json!({"changed": true}));
    let (_, again) = world.ask(Method::DELETE, &path, Value::Null).await;
    assert_eq!(again, json!({"changed": false}));
}

#[tokio::test]
async fn suspending_shows_and_resuming_lifts() {
    let world = World::furnished().await;
    for kind in ["users/ada", "mcps/echo"] {
        let path = format!("/v1/{kind}/suspend");
        let (status, report) = world.post(&path, json!({"reason": "leaked token"})).await;
        assert_eq!(status, 200, "{report}");
        let author = report["deny"]["author"].as_str().unwrap();
        assert!(author.starts_with("uid:0"), "{author}");
    }
    let (_, users) = world.get("/v1/users").await;
    assert_eq!(users[0]["suspended"], "leaked token");
    let (_, mcps) = world.get("/v1/mcps").await;
    assert_eq!(mcps[0]["suspended"], "leaked token");
    let (status, _) = world.post("/v1/users/ada/resume", Value::Null).await;
    assert_eq!(status, 200);
    let (_, users) = world.get("/v1/users").await;
    assert_eq!(users[0]["suspended"], Value::Null);
}

#[tokio::test]
async fn every_change_is_recorded_with_who_and_how_it_ended() {
    let world = World::furnished().await;
    world.post("/v1/users", json!({"name": "ada"})).await;
    world.get("/v1/users").await;
    let records = world.0.into_actions().await;
    assert!(
        records.iter().all(|r| r.starts_with("uid:0")),
        "{records:?}"
    );
    assert!(
        records.iter().any(|r| r.ends_with("mcp.publish echo ok")),
        "{records:?}"
    );
    assert!(
        records.last().unwrap().ends_with("user.add ada conflict"),
        "{records:?}"
    );
    assert_eq!(records.len(), 7, "reading is no change: {records:?}");
}

#[tokio::test]
async fn nobody_gets_in_without_the_kernels_word() {
    let world = World::new().await;
    let bare = Request::get("/v1/status").body(Body::empty()).unwrap();
    let (status, problem) = world.send(bare).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("denied")));

    let mut stranger = Request::post("/v1/users")
        .header("content-type", "application/json")
        .body(Body::from(r#"{"name":"eve"}"#))
        .unwrap();
    stranger.extensions_mut().insert(PeerCred {
        uid: 4_000_000_001,
        gid: 4_000_000_001,
        pid: None,
    });
    let (status, problem) = world.send(stranger).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{problem}");
    let (_, users) = world.get("/v1/users").await;
    assert_eq!(users, json!([]), "nothing was done");
}

#[tokio::test]
async fn bad_requests_get_a_typed_answer() {
    let world = World::furnished().await;
    for (method, path, body, status, word) in [
        (
            Method::POST,
            "/v1/users",
            json!({"name": "Ada"}),
            400,
            "valid name",
        ),
        (
            Method::POST,
            "/v1/users",
            json!({"name": "a", "x": 1}),
            400,
            "unknown field",
        ),
        (
            Method::POST,
            "/v1/users",
            json!({"name": "ada"}),
            409,
            "exists",
        ),
        (
            Method::POST,
            "/v1/mcps",
            json!({"name": "m", "program": {"command": "/missing"}}),
            422,
            "/missing",
        ),
        (Method::PATCH, "/v1/mcps/nope", json!({}), 404, "nope"),
        (
            Method::PATCH,
            "/v1/mcps/echo",
            json!({"limits": {"pids": 0}}),
            400,
            "pids",
        ),
        (Method::POST, "/v1/keys", json!({"user": "bob"}), 404, "bob"),
        (Method::DELETE, "/v1/keys/zzz", Value::Null, 404, "zzz"),
        (
            Method::GET,
            "/v1/keys?who=ada",
            Value::Null,
            400,
            "unknown field",
        ),
        (Method::GET, "/v1/isolates/nope", Value::Null, 404, "nope"),
        (
            Method::GET,
            "/v1/isolates/x/logs?after=-1",
            Value::Null,
            400,
            "invalid",
        ),
        (Method::GET, "/v1/nothing", Value::Null, 404, "/v1/nothing"),
        (Method::DELETE, "/v1/users", Value::Null, 405, "DELETE"),
        (
            Method::POST,
            "/v1/groups/dev/members",
            json!({"user": "bob"}),
            404,
            "bob",
        ),
    ] {
        let (got, problem) = world.ask(method.clone(), path, body).await;
        assert_eq!(got, status, "{method} {path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{method} {path}: {detail}");
        assert_eq!(problem["status"], got);
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.starts_with("docs/errors.md#E0"), "{kind}");
    }

    let mut text = Request::post("/v1/users")
        .body(Body::from(r#"{"name":"a"}"#))
        .unwrap();
    text.extensions_mut().insert(root());
    assert_eq!(world.send(text).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut broken = Request::post("/v1/users")
        .header("content-type", "application/json")
        .body(Body::from("{"))
        .unwrap();
    broken.extensions_mut().insert(root());
    assert_eq!(world.send(broken).await.0, StatusCode::BAD_REQUEST);
    let mut large = Request::post("/v1/users")
        .header("content-type", "application/json")
        .body(Body::from(vec![b' '; (1 << 20) + 1]))
        .unwrap();
    large.extensions_mut().insert(root());
    assert_eq!(world.send(large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_archived_mcp_stays_so() {
    let world = World::furnished().await;
    let (status, _) = world.post("/v1/mcps/echo/archive", Value::Null).await;
    assert_eq!(status, 200);
    for (path, body) in [
        ("/v1/mcps/echo/publish", Value::Null),
        ("/v1/groups/dev/grants", json!({"mcp": "echo"})),
    ] {
        let (status, problem) = world.post(path, body).await;
        assert_eq!(status, 409, "{problem}");
    }
    let (_, made) = world.post("/v1/keys", json!({"user": "ada"})).await;
    assert_eq!(made["subscribed"], json!([]), "{made}");
}
