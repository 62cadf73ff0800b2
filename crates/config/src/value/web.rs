//! Values of the `web` section.

use relay_http::{Network, OriginPattern, ProxyHeader, TrustedProxy};
use toml::Value;
use url::Url;

use super::{list, texts};
use crate::InvalidValue;

/// Parses one origin or a list of them: scheme, host, and any non-default port.
pub(crate) fn origins(value: &Value) -> Result<Vec<OriginPattern>, InvalidValue> {
    let origin = |text: &String| match text.parse() {
        Ok(origin) => Ok(origin),
        Err(_) if text == "*" => Err(invalid!(
            "\"*\" is not an origin; leave the key out to let pages of every origin open sessions"
        )),
        Err(_) if !text.is_ascii() => Err(invalid!(
            "{text:?} is not an origin as browsers send it; write the host in its ASCII form (xn--...)"
        )),
        Err(_) => Err(invalid!(
            "{text:?} is not the origin of a page; write one as in \"https://app.example.com\", or \
             \"https://*.example.com\" for all names with one more label"
        )),
    };
    texts(value, "origin")?.iter().map(origin).collect()
}

/// Parses `https://HOST[:PORT]/`, and normalizes the trailing slash.
pub(crate) fn public_url(value: &Value) -> Result<String, InvalidValue> {
    let is_whole = |url: &Url| {
        url.scheme() == "https"
            && url.host().is_some()
            && url.path() == "/"
            && (url.query(), url.fragment(), url.username(), url.password()) == (None, None, "", None)
    };
    let url = value.as_str().and_then(|text| text.parse().ok()).filter(is_whole);
    url.map(|url: Url| url.to_string()).ok_or_else(|| {
        invalid!(
            "{value} is not a public URL of a relay; write scheme, host and port only, as in \
             \"https://relay.example.com:4443/\""
        )
    })
}

/// Parses one network or a list of them.
pub(crate) fn networks(value: &Value) -> Result<Vec<Network>, InvalidValue> {
    let values = list(value)?;
    if values.len() > relay_http::limits::PROXIES {
        return Err(invalid!("{} are too many; at most {}", values.len(), relay_http::limits::PROXIES));
    }
    values.iter().map(network).collect()
}

/// Parses one network of proxies or a list of them; each is a text, or a table with `net` and `header`.
pub(crate) fn proxies(value: &Value) -> Result<Vec<TrustedProxy>, InvalidValue> {
    let values = list(value)?;
    if values.is_empty() {
        return Err(invalid!("name at least one network, or leave the key out"));
    }
    if values.len() > relay_http::limits::PROXIES {
        return Err(invalid!("{} are too many; at most {}", values.len(), relay_http::limits::PROXIES));
    }
    values.iter().map(trusted_proxy).collect()
}

fn trusted_proxy(value: &Value) -> Result<TrustedProxy, InvalidValue> {
    let Value::Table(entry) = value else {
        return Ok(TrustedProxy { network: network(value)?, header: None });
    };
    if let Some(key) = entry.keys().find(|key| !["net", "header"].contains(&key.as_str())) {
        return Err(invalid!("{key:?} is not a key of a proxy; its keys are `net` and `header`"));
    }
    let net = entry.get("net").ok_or_else(|| {
        invalid!("a proxy needs `net`, as in {{ net = \"10.0.0.0/8\", header = \"forwarded\" }}")
    })?;
    let header = entry.get("header").map(proxy_header).transpose()?;
    Ok(TrustedProxy { network: network(net)?, header })
}

fn network(value: &Value) -> Result<Network, InvalidValue> {
    let network = value.as_str().and_then(|text| text.parse().ok());
    network.ok_or_else(|| {
        invalid!("{value} is not a network; write one as in \"10.0.0.0/8\", or an address, in quotes")
    })
}

/// Parses the header in which proxies name their clients.
pub(crate) fn proxy_header(value: &Value) -> Result<ProxyHeader, InvalidValue> {
    let header = ProxyHeader::ALL.into_iter().find(|header| value.as_str() == Some(header.name()));
    header.ok_or_else(|| {
        invalid!(
            "{value} is not known; write \"x-forwarded-for\", \"forwarded\" or \"proxy\" (the PROXY protocol)"
        )
    })
}

/// Parses one number or a list of them.
pub(crate) fn ids<T: TryFrom<i64>>(value: &Value) -> Result<Vec<T>, InvalidValue> {
    let id = |value: &Value| {
        let number = value.as_integer().or_else(|| value.as_str()?.parse().ok());
        let number = number.filter(|number| *number >= 0).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| invalid!("{value} is not a valid id; write a number, or a list of them"))
    };
    match list(value)? {
        [] => Err(invalid!("name at least one, or leave the key out")),
        values => values.iter().map(id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn entry(text: &str) -> Value {
        let mut table: Table = toml::from_str(&format!("value = {text}")).unwrap();
        table.remove("value").unwrap()
    }

    #[test]
    fn origin_is_what_a_browser_sends() {
        for (written, origin) in [
            ("https://app.example.com", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("https://App.Example.com:443/", "https://app.example.com"),
            ("https://*.example.com", "https://*.example.com"),
        ] {
            let parsed = origins(&text(written)).unwrap();
            assert_eq!(parsed.iter().map(ToString::to_string).collect::<Vec<_>>(), [origin], "{written}");
        }
        for bad in ["app.example.com", "https://x/y", "*", "https://*", "null", "", "file:///x"] {
            assert!(origins(&text(bad)).is_err(), "{bad}");
        }
        assert!(origins(&text("*")).unwrap_err().0.contains("leave the key out"));
        assert!(origins(&text("https://bücher.example")).unwrap_err().0.contains("xn--"));
    }

    #[test]
    fn proxy_is_a_network_and_perhaps_its_header() {
        let value =
            entry(r#"["10.0.0.0/8", { net = "::1" }, { net = "10.1.0.0/16", header = "forwarded" }]"#);
        let found = proxies(&value).unwrap();
        assert_eq!(
            found.iter().map(|proxy| proxy.header).collect::<Vec<_>>(),
            [None, None, Some(ProxyHeader::Forwarded)]
        );
        assert_eq!(proxies(&entry(r#"{ net = "::1", header = "proxy" }"#)).unwrap().len(), 1);
        for bad in [
            r#""10.0.0.0/40""#,
            r#""proxy.example.com""#,
            "7",
            "[]",
            "{ header = \"proxy\" }",
            r#"{ net = "::1", header = "via" }"#,
            r#"{ net = "::1", headers = "proxy" }"#,
            r#"{ net = 7 }"#,
        ] {
            assert!(proxies(&entry(bad)).is_err(), "{bad}");
        }
        let many = |count| Value::Array(vec![text("::1"); count]);
        let most = relay_http::limits::PROXIES;
        assert!(proxies(&many(most)).is_ok());
        assert!(proxies(&many(most + 1)).unwrap_err().0.contains("at most"));
    }

    #[test]
    fn ids_are_numbers() {
        assert_eq!(ids::<u32>(&Value::Integer(1_000)), Ok(vec![1_000]));
        assert_eq!(ids::<u32>(&Value::Array(vec![text("0"), Value::Integer(5)])), Ok(vec![0, 5]));
        for bad in [Value::Integer(-1), text("root"), Value::Array(Vec::new()), Value::Boolean(true)] {
            assert!(ids::<u32>(&bad).is_err(), "{bad}");
        }
        assert!(ids::<i32>(&Value::Integer(1 << 40)).is_err());
    }
}
