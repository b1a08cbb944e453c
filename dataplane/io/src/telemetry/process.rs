//! File descriptors of this process: every connection takes some (ztunnel.md 8.3).

use std::fs;

use super::metrics::{family, line};

/// Read when somebody asks for metrics. What the kernel does not tell is left out.
pub(super) fn render(text: &mut String) {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = entries.count().saturating_sub(1);
        family(text, "process_open_fds", "gauge", "File descriptors in use");
        line(text, "process_open_fds", "", open);
    }
    if let Some(limit) = fs::read_to_string("/proc/self/limits")
        .ok()
        .as_deref()
        .and_then(soft_limit)
    {
        family(text, "process_max_fds", "gauge", "File descriptors allowed");
        line(text, "process_max_fds", "", limit);
    }
}

/// The soft limit of open files; none when it is unlimited.
fn soft_limit(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let cases = [
            ("Max open files            1024      4096      files\n", Some(1024)),
            (
                "Max cpu time  unlimited unlimited seconds\nMax open files 7 9 files",
                Some(7),
            ),
            ("Max open files            unlimited unlimited files", None),
            ("Max open files", None),
            ("", None),
        ];
        for (limits, expected) in cases {
            assert_eq!(soft_limit(limits), expected, "{limits:?}");
        }
    }

    #[test]
    fn both_gauges_are_told() {
        let mut text = String::new();
        render(&mut text);
        for name in ["process_open_fds", "process_max_fds"] {
            let prefix = format!("{name} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
            assert!(value.is_some_and(|v| v.parse::<u64>().is_ok_and(|v| v > 0)), "{text}");
        }
    }
}
