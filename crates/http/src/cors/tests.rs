use axum::{
    Router,
    body::Body,
    middleware::{from_fn, from_fn_with_state},
    routing::get,
};
use hyper::{HeaderMap, StatusCode, service::Service};
use hyper_util::service::TowerToHyperService;
use relay_worker::ConnInfo;
use tokio::runtime::Builder;

use super::*;
use crate::client::ClientInfo;

const UPGRADE: [(&str, &str); 2] = [("upgrade", "websocket"), ("connection", "upgrade")];

fn client() -> ClientInfo {
    let conn = ConnInfo::new("http", "192.0.2.7:5".parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    ClientInfo { conn, is_proxy: false, is_tls: false }
}

/// Status and headers of the answer to a page of `origin`.
fn answer(has_websocket: bool, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap) {
    let origins = Origins::listed(vec!["https://app.test".parse().unwrap()]);
    let rules = Arc::new(CrossOrigin { origins, has_websocket });
    let router = Router::new()
        .route("/", get(async || "a").route_layer(from_fn(refuse_foreign)))
        .layer(from_fn_with_state(rules.clone(), expose))
        .layer(from_fn_with_state(rules, decide));
    let mut request = Request::builder().uri("/").extension(client());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    let Ok(response) = runtime.block_on(TowerToHyperService::new(router).call(request));
    (response.status(), response.headers().clone())
}

#[test]
fn listed_page_may_read_the_answer() {
    let (status, headers) = answer(true, &[("origin", "https://app.test")]);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["access-control-allow-origin"], "https://app.test");
    assert_eq!(headers["access-control-expose-headers"], "*");
}

#[test]
fn other_page_is_refused_without_access() {
    let (status, headers) = answer(true, &[("origin", "https://evil.test")]);
    assert_eq!((status, &headers["vary"]), (StatusCode::FORBIDDEN, &"origin".parse().unwrap()));
    assert!(!headers.contains_key("access-control-allow-origin"));
    assert!(!headers.contains_key("access-control-expose-headers"));
}

#[test]
fn websocket_answers_have_no_cors_headers() {
    let headers = [("origin", "https://app.test"), UPGRADE[0], UPGRADE[1]];
    assert!(!answer(true, &headers).1.contains_key("access-control-allow-origin"));
    assert!(answer(false, &headers).1.contains_key("access-control-allow-origin"), "it is no WebSocket");
}
