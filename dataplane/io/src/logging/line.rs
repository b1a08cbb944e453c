//! A line's form: tabs and `key=value` for people, or one JSON object for machines (`LOG_FORMAT`, ztunnel.md 8.5).

use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Level;

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Json,
}

/// There is no such format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no log format; write plain or json")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat(name.to_owned())),
        }
    }
}

impl Format {
    /// Write this process's lines so from now on.
    pub(super) fn choose(self) {
        IS_JSON.store(self == Self::Json, Ordering::Relaxed);
    }

    fn chosen() -> Self {
        if IS_JSON.load(Ordering::Relaxed) {
            Self::Json
        } else {
            Self::Plain
        }
    }
}

/// What a line says besides its message, in the process's format; strings are escaped, so that a line stays one line.
pub struct Fields {
    format: Format,
    text: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self::new(Format::chosen())
    }
}

impl Fields {
    fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
        }
    }

    /// Add a text; an empty one is left out.
    pub fn text(self, key: &str, value: &str) -> Self {
        if value.is_empty() {
            self
        } else {
            self.quoted(key, value)
        }
    }

    /// Add something whose display needs no quotes to be read: an address, a name of ours.
    pub fn plain(self, key: &str, value: impl Display) -> Self {
        match self.format {
            Format::Plain => self.bare(key, value),
            Format::Json => self.quoted(key, &value.to_string()),
        }
    }

    /// Add a number.
    pub fn number(self, key: &str, value: u64) -> Self {
        self.bare(key, value)
    }

    fn bare(mut self, key: &str, value: impl Display) -> Self {
        // Writing to a String cannot fail, here and below.
        let _ = match self.format {
            Format::Plain => write!(self.text, "{key}={value} "),
            Format::Json => write!(self.text, ",\"{key}\":{value}"),
        };
        self
    }

    fn quoted(mut self, key: &str, value: &str) -> Self {
        let _ = match self.format {
            Format::Plain => write!(self.text, "{key}={value:?} "),
            Format::Json => write!(self.text, ",{}:{}", json(key), json(value)),
        };
        self
    }

    /// The whole line.
    pub(super) fn finish(&self, time: &str, level: Level, scope: &str, message: &str) -> String {
        let (level, text) = (level.name(), &self.text);
        match self.format {
            Format::Plain => format!("{time}\t{level}\t{scope}\t{message}\t{}\n", text.trim_end()),
            Format::Json => format!(
                "{{\"level\":\"{level}\",\"time\":\"{time}\",\"scope\":{},\"message\":{}{text}}}\n",
                json(scope),
                json(message)
            ),
        }
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> String {
        let fields = Fields::new(format)
            .text("error", "a\nb\"c")
            .text("nothing", "")
            .plain("src.addr", "[::1]:80")
            .number("bytes", 3);
        fields.finish("now", Level::Info, "access", "it \"ended\"")
    }

    #[test]
    fn a_value_cannot_break_its_line() {
        let expected = "now\tinfo\taccess\tit \"ended\"\terror=\"a\\nb\\\"c\" src.addr=[::1]:80 bytes=3\n";
        assert_eq!(line(Format::Plain), expected);
    }

    #[test]
    fn json_is_json() {
        let line = line(Format::Json);
        let found: serde_json::Value = serde_json::from_str(&line).expect("json");
        let expected = serde_json::json!({
            "level": "info", "time": "now", "scope": "access", "message": "it \"ended\"",
            "error": "a\nb\"c", "src.addr": "[::1]:80", "bytes": 3,
        });
        assert_eq!(found, expected);
        assert_eq!(line.lines().count(), 1);
    }
}
