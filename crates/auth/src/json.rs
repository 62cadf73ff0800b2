//! JSON objects of keys and tokens, parsed strictly: a repeated name in an object, at any depth, is an error, since
//! parsers differ in which of the values they use (RFC 8259 §4).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Error of parsing a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not UTF-8, not JSON, or trailing data.
    #[error("is not valid JSON")]
    Syntax,
    /// JSON, but not an object.
    #[error("is JSON, but not an object")]
    Kind,
    /// An object repeats a name.
    #[error("repeats a name in one object")]
    Twice,
}

/// JSON object without repeated names.
#[derive(Debug)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ObjectError> {
        match serde_json::from_slice(bytes) {
            Ok(Strict(Value::Object(object))) => Ok(Self(object)),
            Ok(Strict(_)) => Err(ObjectError::Kind),
            // The visitor below raises the only data error; all others are syntax errors.
            Err(error) if error.is_data() => Err(ObjectError::Twice),
            Err(_) => Err(ObjectError::Syntax),
        }
    }

    pub(crate) fn of(value: &Value) -> Option<Self> {
        value.as_object().cloned().map(Self)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// JSON value in which no object repeats a name.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("repeated name"));
            }
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_refused_at_any_depth() {
        for (text, error) in [
            (r#"{"a":1,"a":1}"#, ObjectError::Twice),
            (r#"{"a":1,"\u0061":2}"#, ObjectError::Twice),
            (r#"{"a":[{"b":{"c":1,"c":2}}]}"#, ObjectError::Twice),
            ("[1]", ObjectError::Kind),
            ("1", ObjectError::Kind),
            ("", ObjectError::Syntax),
            ("{}{}", ObjectError::Syntax),
            (r#"{"a":1,}"#, ObjectError::Syntax),
            ("\u{feff}{}", ObjectError::Syntax),
        ] {
            assert_eq!(Object::parse(text.as_bytes()).unwrap_err(), error, "{text}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}").unwrap_err(), ObjectError::Syntax);
        let deep = [&b"{\"a\":"[..], &b"[".repeat(100_000)].concat();
        assert_eq!(Object::parse(&deep).unwrap_err(), ObjectError::Syntax);
        let good = Object::parse(br#"{"a":{"a":1},"b":[{"a":1},{"a":1}],"A":null}"#).unwrap();
        assert!(good.get("a").is_some() && good.get("c").is_none());
    }
}
