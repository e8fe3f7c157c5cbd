//! What a reload changes about credentials: names, never what is behind them.

use std::collections::BTreeMap;

use crate::config::access::{AdminAuth, ListenerAccess, WebConfig};
use crate::kinds::Settings;

/// Describes the differences, one line per change.
pub(super) fn describe(before: &Settings, new: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    // A source that is added or removed has a line of its own.
    for (name, auth) in &new.source_auth {
        let Some(old) = before.source_auth.get(name) else { continue };
        let asked = !old.is_empty() || before.server.access.has_users();
        let asks = !auth.is_empty() || new.server.access.has_users();
        if asked && !asks {
            lines.push(format!("source {name} asks for no credentials now"));
        } else if old != auth {
            lines.push(format!("credentials of source {name} changed"));
        }
    }
    if asks_on_admin(before) && !asks_on_admin(new) {
        lines.push("the admin listener asks for no credentials now".to_owned());
    }
    describe_admin(&before.admin.auth, &new.admin.auth, &mut lines);
    describe_web_config("server", &before.server.access, &new.server.access, &mut lines);
    describe_web_config("admin", &before.admin.access, &new.admin.access, &mut lines);
    lines
}

fn asks_on_admin(settings: &Settings) -> bool {
    !settings.admin.auth.is_empty() || settings.admin.access.has_users()
}

fn describe_admin(before: &AdminAuth, new: &AdminAuth, lines: &mut Vec<String>) {
    push_differences("admin token", &before.tokens, &new.tokens, |token| &token.name, lines);
    push_differences("admin user", &before.users, &new.users, |user| &user.name, lines);
    let (old_certs, new_certs) = (&before.client_certs, &new.client_certs);
    push_differences("admin client certificate", old_certs, new_certs, |cert| &cert.name, lines);
    for (key, changed) in [
        ("users_file", before.users_file != new.users_file),
        ("jwt", before.jwt != new.jwt),
        ("metrics_unauthenticated", before.metrics_unauthenticated != new.metrics_unauthenticated),
        ("external_url", before.external_url != new.external_url),
    ] {
        if changed {
            lines.push(format!("admin.{key} changed"));
        }
    }
}

fn describe_web_config(
    listener: &str,
    before: &ListenerAccess,
    new: &ListenerAccess,
    lines: &mut Vec<String>,
) {
    let none = WebConfig::default();
    let [before, new] = [before, new].map(|access| access.web_config.as_ref().unwrap_or(&none));
    let [old_users, new_users] =
        [before, new].map(|config| config.basic_auth_users.iter().collect::<Vec<_>>());
    let kind = format!("{listener}.web_config_file user");
    push_differences(&kind, &old_users, &new_users, |(name, _)| name, lines);
    if before.headers != new.headers {
        lines.push(format!("{listener}.web_config_file headers changed"));
    }
}

/// A line for each named credential that differs.
fn push_differences<T: PartialEq>(
    kind: &str,
    before: &[T],
    new: &[T],
    name: impl for<'t> Fn(&'t T) -> &'t String,
    lines: &mut Vec<String>,
) {
    let by_name = |all: &'_ [T]| -> BTreeMap<String, usize> {
        all.iter().enumerate().map(|(at, one)| (name(one).clone(), at)).collect()
    };
    let (old_names, new_names) = (by_name(before), by_name(new));
    for (name, at) in &new_names {
        match old_names.get(name) {
            None => lines.push(format!("{kind} {name} added")),
            Some(old) if before.get(*old) != new.get(*at) => lines.push(format!("{kind} {name} changed")),
            Some(_) => {}
        }
    }
    let removed = old_names.keys().filter(|name| !new_names.contains_key(*name));
    lines.extend(removed.map(|name| format!("{kind} {name} removed")));
}
