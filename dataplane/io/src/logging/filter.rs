//! Which lines are written: a level for all scopes, and others for some (the form of `RUST_LOG`, ztunnel.md 8.5).

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// We failed.
    Error = 1,
    /// Someone must act.
    Warn,
    /// An operator wants it.
    Info,
    /// We want it.
    Debug,
}

impl Level {
    /// The level of that name, in any case; `None` for other words.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "error" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" | "trace" => Some(Self::Debug),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// A part of a filter that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no log level and no scope=level; levels are error, warn, info, debug and off")]
pub struct BadDirective(String);

/// Up to which level lines are written; `None` is off.
type Limit = Option<Level>;

/// The levels of all scopes. A scope is a word such as `access`, `dns` or `xds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    others: Limit,
    /// The longest that fits a line's scope decides.
    scopes: Vec<(String, Limit)>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            others: Some(Level::Info),
            scopes: Vec::new(),
        }
    }
}

impl Filter {
    /// Also what `change` says: its level for all scopes that it does not name, and the scopes that it names.
    pub(super) fn add(&mut self, change: Change) {
        if let Some(others) = change.others {
            self.others = others;
        }
        for (scope, limit) in change.scopes {
            self.scopes.retain(|(known, _)| *known != scope);
            self.scopes.push((scope, limit));
        }
    }

    /// Whether a line is written.
    pub(super) fn allows(&self, level: Level, scope: &str) -> bool {
        let fitting = self.scopes.iter().filter(|(name, _)| is_within(scope, name));
        let limit = fitting
            .max_by_key(|(name, _)| name.len())
            .map_or(self.others, |(_, limit)| *limit);
        limit.is_some_and(|limit| level <= limit)
    }

    /// The number of the most talkative level of all; 0 when nothing is written.
    pub(super) fn most(&self) -> u8 {
        let limits = self.scopes.iter().map(|(_, limit)| *limit);
        limits
            .chain([self.others])
            .flatten()
            .max()
            .map_or(0, |level| level as u8)
    }
}

/// Whether `scope` is `name` or inside of it.
fn is_within(scope: &str, name: &str) -> bool {
    scope
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = |limit: &Limit| limit.map_or("off", Level::name);
        f.write_str(name(&self.others))?;
        self.scopes
            .iter()
            .try_for_each(|(scope, limit)| write!(f, ",{scope}={}", name(limit)))
    }
}

impl FromStr for Filter {
    type Err = BadDirective;

    fn from_str(text: &str) -> Result<Self, BadDirective> {
        let mut filter = Self::default();
        filter.add(text.parse()?);
        Ok(filter)
    }
}

/// What a filter is changed by: `info,access=debug,dns=off`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    others: Option<Limit>,
    scopes: Vec<(String, Limit)>,
}

impl FromStr for Change {
    type Err = BadDirective;

    fn from_str(text: &str) -> Result<Self, BadDirective> {
        let mut change = Self::default();
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let bad = || BadDirective(directive.to_owned());
            let (scope, limit) = match directive.split_once('=') {
                Some((scope, limit)) => (Some(scope.trim()), parse_limit(limit.trim()).ok_or_else(bad)?),
                None => (None, parse_limit(directive).ok_or_else(bad)?),
            };
            // Stock ztunnel's modules begin with its name; our scopes do without.
            match scope.map(|scope| scope.strip_prefix("ztunnel::").unwrap_or(scope)) {
                None | Some("ztunnel") => change.others = Some(limit),
                Some(scope) if is_scope(scope) => change.scopes.push((scope.to_owned(), limit)),
                Some(_) => return Err(bad()),
            }
        }
        Ok(change)
    }
}

fn parse_limit(name: &str) -> Option<Limit> {
    if name.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    Level::parse(name).map(Some)
}

fn is_scope(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
    !name.is_empty() && name.chars().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_scope_decides() {
        let filter: Filter = "warn,dns=debug,dns::forward=off,access=error"
            .parse()
            .expect("a filter");
        let cases = [
            ("xds", Level::Warn, true),
            ("xds", Level::Info, false),
            ("dns", Level::Debug, true),
            ("dns::forward", Level::Error, false),
            ("dns::forwarder", Level::Debug, true),
            ("dnsx", Level::Debug, false),
            ("access", Level::Error, true),
            ("access", Level::Warn, false),
        ];
        for (scope, level, expected) in cases {
            assert_eq!(filter.allows(level, scope), expected, "{scope} {level:?}");
        }
        assert_eq!(filter.most(), Level::Debug as u8);
    }

    #[test]
    fn a_filter_is_told_as_it_is_read() {
        let cases = [
            ("", "info"),
            ("DEBUG", "debug"),
            ("off", "off"),
            (" access=off , trace", "debug,access=off"),
            ("ztunnel=debug,ztunnel::dns=warn", "debug,dns=warn"),
            ("h2=info,h2=error", "info,h2=error"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Filter>().expect(text).to_string(), expected);
        }
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["loud", "access=loud", "=info", "a b=info", "info,access[x]=debug"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        assert_eq!("info,loud".parse::<Filter>(), Err(BadDirective("loud".to_owned())));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let mut filter: Filter = "warn,dns=debug".parse().expect("a filter");
        filter.add("access=debug".parse().expect("a change"));
        assert_eq!(filter.to_string(), "warn,dns=debug,access=debug");
        filter.add("error".parse().expect("a change"));
        assert_eq!(filter.to_string(), "error,dns=debug,access=debug");
    }
}
