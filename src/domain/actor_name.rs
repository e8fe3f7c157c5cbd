//! Names of actors in the audit trail.

/// The actor of a reload by SIGHUP.
pub const SIGNAL: &str = "signal";
/// The actor of a reload after a change of the configuration's files.
pub const FILE_WATCHER: &str = "file watcher";

/// Whether the bridge calls itself so, in any case and with any white space.
pub fn is_reserved(name: &str) -> bool {
    let plain = name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    [SIGNAL, FILE_WATCHER].contains(&plain.as_str())
}

/// Control characters, those of Unicode's category Cf (which reverse or hide text), and its separators of lines.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}
