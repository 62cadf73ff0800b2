//! What values of the web server mean.

use relay_admin::Network;
use toml::Value;
use url::Url;

use super::{list, texts};

/// One origin or a list of them: scheme, host, and a port that is not the usual one.
pub(in crate::config) fn origins(value: &Value) -> Result<Vec<String>, String> {
    let origins = texts(value, "origin")?;
    let is_one = |text: &str| {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let origin = bare.parse::<Url>().map(|url| url.origin());
        origin
            .is_ok_and(|origin| origin.is_tuple() && origin.ascii_serialization().eq_ignore_ascii_case(bare))
    };
    match origins.iter().find(|text| !is_one(text)) {
        None => Ok(origins),
        Some(bad) => {
            Err(format!("{bad:?} is no origin of a page; write one as in \"https://app.example.com\""))
        }
    }
}

/// One network or a list of them.
pub(in crate::config) fn networks(value: &Value) -> Result<Vec<Network>, String> {
    let texts = texts(value, "network")?;
    if texts.len() > relay_admin::limits::PROXIES {
        return Err(format!("{} are too many; at most {}", texts.len(), relay_admin::limits::PROXIES));
    }
    let network = |text: &String| {
        let wrong = |_| format!("{text:?} is no network; write one as in \"10.0.0.0/8\", or an address");
        text.parse().map_err(wrong)
    };
    texts.iter().map(network).collect()
}

/// One number or a list of them.
pub(in crate::config) fn ids<T: TryFrom<i64>>(value: &Value) -> Result<Vec<T>, String> {
    let id = |value: &Value| {
        let number = value.as_integer().or_else(|| value.as_str()?.parse().ok());
        let number = number.filter(|number| *number >= 0).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("{value} is no id; write a number, or a list of them"))
    };
    match list(value)? {
        [] => Err("name at least one, or leave the key out".to_owned()),
        values => values.iter().map(id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in ["https://app.example.com", "http://localhost:5173", "https://App.Example.com/"] {
            assert_eq!(origins(&text(good)), Ok(vec![good.to_owned()]), "{good}");
        }
        for bad in ["app.example.com", "https://x/y", "*", "https://x:443", "null", "", "file:///x"] {
            assert!(origins(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_is_an_address_and_its_bits() {
        let value = Value::Array(vec![text("10.0.0.0/8"), text("::1")]);
        assert_eq!(networks(&value).unwrap().len(), 2);
        assert!(networks(&text("10.0.0.0/40")).is_err() && networks(&text("proxy.example.com")).is_err());
        let many = |count| Value::Array(vec![text("::1"); count]);
        let most = relay_admin::limits::PROXIES;
        assert!(networks(&many(most)).is_ok());
        assert!(networks(&many(most + 1)).unwrap_err().contains("at most"));
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
