//! Parsing of a configuration file into values and problems with their positions.

use std::ops::Range;

use toml::{
    Value,
    de::{DeTable, DeValue},
};

use super::{
    InvalidValue, Position, Problem, Source, hint,
    table::{self, Entry},
};

/// Value of a known key.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) entry: &'static Entry,
    /// Key as spelled in the file, or name of the flag or variable.
    pub(super) spelled: String,
    pub(super) value: Value,
    pub(super) source: Source,
    /// Position of the key in a file.
    pub(super) key_at: Option<Position>,
}

/// Parsed file.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    pub(super) given: Vec<Given>,
    pub(super) problems: Vec<(Position, Problem)>,
    /// Whether it is TOML at all.
    pub(super) is_toml: bool,
}

/// Parses `text`.
pub(super) fn read(text: &str) -> ParsedFile {
    let mut content = ParsedFile { is_toml: true, ..ParsedFile::default() };
    match DeTable::parse(text) {
        Ok(table) => TomlReader { text, content: &mut content }.table("", table.get_ref()),
        Err(error) => {
            let at = Position::of(text, error.span().unwrap_or(0..0).start);
            content.problems.push((at, Problem::Syntax(error.message().to_owned())));
            content.is_toml = false;
        }
    }
    content
}

struct TomlReader<'a> {
    text: &'a str,
    content: &'a mut ParsedFile,
}

impl TomlReader<'_> {
    /// Records every key of `table`, whose own key is `prefix`.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = dotted(prefix, name.get_ref());
            self.key(key, name.span(), value.get_ref(), value.span());
        }
    }

    fn key(&mut self, key: String, key_span: Range<usize>, value: &DeValue<'_>, span: Range<usize>) {
        let at = Position::of(self.text, span.start);
        let key_at = Position::of(self.text, key_span.start);
        let inner = value.as_table().filter(|_| table::is_section(&key));
        if let Some(inner) = inner {
            self.table(&key, inner);
            return;
        }
        match (table::find(&key), plain(value)) {
            (None, value) if table::is_section(&key) => {
                let value = value.map_or_else(|why| why.0, |value| value.to_string());
                self.content.problems.push((at, Problem::NoSection { key, value }));
            }
            (None, _) => {
                let hint = hint::key(&key);
                self.content.problems.push((key_at, Problem::UnknownKey { key, hint }));
            }
            (Some(_), Err(InvalidValue(what))) => {
                self.content.problems.push((at, Problem::Value { key, what }));
            }
            (Some(entry), Ok(value)) => {
                let source = Source::File { key: key.clone(), at };
                self.content.given.push(Given { entry, spelled: key, value, source, key_at: Some(key_at) });
            }
        }
    }
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Value without positions.
fn plain(value: &DeValue<'_>) -> Result<Value, InvalidValue> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| InvalidValue(format!("{number} is too large")))?,
        ),
        DeValue::Float(number) => Value::Float(
            number.as_str().parse().map_err(|_| InvalidValue(format!("{number} is not a number")))?,
        ),
        DeValue::Boolean(switch) => Value::Boolean(*switch),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| plain(value.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let pair = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                plain(value.get_ref()).map(|value| (name.to_string(), value))
            };
            Value::Table(table.iter().map(pair).collect::<Result<_, _>>()?)
        }
    })
}
