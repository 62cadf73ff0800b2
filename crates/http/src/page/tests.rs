use axum::{
    body::{Body, to_bytes},
    extract::Request,
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;

const FILES: [(&str, &File); 3] = [("/", &INDEX), ("/page.js", &SCRIPT), ("/page.css", &STYLE)];

/// Answer of a page whose listeners are not open.
fn answer(target: &str, headers: HeaderMap) -> Response {
    let names = Arc::new(Vec::new);
    let about = About { version: String::new(), url: None, names, fingerprint: Arc::new(|| None) };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = target.parse().unwrap();
    *request.headers_mut() = headers;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Ok(response) = runtime.block_on(TowerToHyperService::new(Page::new(about).public()).call(request));
    response
}

fn asking(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

fn text(response: &Response, name: HeaderName) -> &str {
    response.headers().get(&name).map_or("", |value| value.to_str().unwrap())
}

fn body(response: Response) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(to_bytes(response.into_body(), usize::MAX)).unwrap().to_vec()
}

#[test]
fn every_file_has_its_type_and_security_headers() {
    for (target, file) in FILES {
        let response = answer(target, HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(&response, header::CONTENT_TYPE), file.kind);
        assert_eq!(text(&response, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert_eq!(text(&response, header::REFERRER_POLICY), "no-referrer");
        assert!(text(&response, header::CONTENT_SECURITY_POLICY).starts_with("default-src 'self';"));
        assert_eq!(body(response), file.bytes);
    }
}

#[test]
fn known_etag_is_answered_with_304() {
    for (target, _) in FILES {
        for encoding in ["identity", "br, gzip;q=0.5"] {
            let first = answer(target, asking(&[(header::ACCEPT_ENCODING, encoding)]));
            let tag = text(&first, header::ETAG).to_owned();
            for tags in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
                let asked = asking(&[(header::ACCEPT_ENCODING, encoding), (header::IF_NONE_MATCH, &tags)]);
                let again = answer(target, asked);
                assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{tags}");
                assert_eq!(text(&again, header::ETAG), tag);
                assert!(body(again).is_empty());
            }
            let asked = asking(&[(header::ACCEPT_ENCODING, encoding), (header::IF_NONE_MATCH, "\"other\"")]);
            assert_eq!(answer(target, asked).status(), StatusCode::OK);
        }
    }
    assert_ne!(INDEX.tag, SCRIPT.tag);
}

#[test]
fn gzip_is_sent_where_accepted() {
    for (accepted, squeezed) in [("gzip", true), ("br, GZIP;q=0.1", true), ("gzip;q=0", false), ("br", false)]
    {
        for (target, file) in FILES {
            let response = answer(target, asking(&[(header::ACCEPT_ENCODING, accepted)]));
            assert_eq!(text(&response, header::VARY), "accept-encoding");
            assert_eq!(
                text(&response, header::CONTENT_ENCODING),
                if squeezed { "gzip" } else { "" },
                "{accepted}"
            );
            assert_eq!(body(response), if squeezed { file.squeezed } else { file.bytes });
        }
    }
}

#[test]
fn the_page_names_no_other_host() {
    let page = std::str::from_utf8(INDEX.bytes).unwrap();
    assert!(page.contains("src=\"page.js\"") && page.contains("href=\"page.css\""));
    // The namespace of the embedded SVG icon looks like an address.
    let others = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!others.contains("http://") && !others.contains("https://") && !others.contains("\"//"));
    assert!(!std::str::from_utf8(STYLE.bytes).unwrap().contains("url("));
}
