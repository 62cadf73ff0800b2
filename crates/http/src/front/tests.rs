use axum::{body::Body, routing::get};
use hyper::{Version, service::Service};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Builder;

use super::*;

fn answer(router: Router, request: Request) -> Response {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let Ok(response) = runtime.block_on(TowerToHyperService::new(router).call(request));
    response
}

fn request(method: Method, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn site(hosts: Hosts) -> Router {
    let target = async |request: Request| {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        format!("{host} {}", request.uri())
    };
    layered(with_body_limit(Router::new().route("/a", get(target).post(async || "posted"))), &hosts.into())
}

fn text(response: Response) -> String {
    let runtime = Builder::new_current_thread().build().unwrap();
    let bytes = runtime.block_on(axum::body::to_bytes(response.into_body(), usize::MAX)).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn unlisted_host_is_refused_on_every_route() {
    for target in ["/a", "/none"] {
        let hosts = Hosts::only(&["relay.test".to_owned()]);
        let status =
            |host| answer(site(hosts.clone()), request(Method::GET, target, &[("host", host)])).status();
        assert_eq!(status("evil.example"), StatusCode::FORBIDDEN, "{target}");
        assert_ne!(status("relay.test:80"), StatusCode::FORBIDDEN, "{target}");
        assert_ne!(status("127.0.0.1"), StatusCode::FORBIDDEN, "{target}");
    }
}

#[test]
fn request_without_host_is_the_last_of_its_connection() {
    let response = answer(site(Hosts::any()), request(Method::GET, "/a", &[]));
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["connection"], "close");
    let mut old = request(Method::GET, "/a", &[]);
    *old.version_mut() = Version::HTTP_10;
    assert_eq!(answer(site(Hosts::any()), old).status(), StatusCode::OK);
}

#[test]
fn absolute_target_becomes_path_and_host() {
    let absolute = request(Method::GET, "http://other:81/a?b", &[("host", "x")]);
    assert_eq!(text(answer(site(Hosts::any()), absolute)), "other:81 /a?b");
}

#[test]
fn server_wide_requests_have_answers_of_their_own() {
    for (method, target, status) in [
        (Method::OPTIONS, "*", StatusCode::NO_CONTENT),
        (Method::OPTIONS, "/", StatusCode::NO_CONTENT),
        (Method::CONNECT, "x:1", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "*", StatusCode::BAD_REQUEST),
        (Method::GET, "/", StatusCode::NOT_FOUND),
    ] {
        let response = answer(site(Hosts::any()), request(method.clone(), target, &[("host", "x:1")]));
        assert_eq!(response.status(), status, "{method} {target}");
    }
}

#[test]
fn declared_body_over_the_limit_is_refused() {
    let posted = |bytes: usize| {
        let length = bytes.to_string();
        let posted = request(Method::POST, "/a", &[("host", "x"), ("content-length", &length)]);
        answer(site(Hosts::any()), posted).status()
    };
    assert_eq!(posted(BODY_BYTES), StatusCode::OK);
    assert_eq!(posted(BODY_BYTES + 1), StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn route_without_a_body_refuses_any() {
    let router = || Router::new().route("/a", get(async || "a").route_layer(from_fn(refuse_body)));
    for (header, status) in [
        (("content-length", "0"), StatusCode::OK),
        (("content-length", "1"), StatusCode::PAYLOAD_TOO_LARGE),
        (("transfer-encoding", "chunked"), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(answer(router(), request(Method::GET, "/a", &[header])).status(), status, "{header:?}");
    }
}

#[test]
fn answer_that_does_not_begin_in_time_is_504() {
    let never = Router::new().route("/a", get(async || std::future::pending::<()>().await));
    let limited = never.layer(from_fn_with_state(Duration::from_millis(1), limit_time));
    let response = answer(limited, request(Method::GET, "/a", &[]));
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}
