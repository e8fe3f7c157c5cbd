//! Readers of lists of names: of certificates, tokens and groups.

use super::super::decode::{Fields, check_not_empty, distinct};
use super::super::diagnostic::{Code, Diagnostics, Location};
use super::super::scalar::owned_text;
use super::super::yaml::{Kind, Node};
use super::ClientCertAuth;

/// Reads `auth.client_cert`, and where it is.
pub(super) fn client_cert(node: &Node, diagnostics: &mut Diagnostics) -> Option<(ClientCertAuth, Location)> {
    let mut fields = Fields::from_node(node, "sources.*.auth.client_cert", diagnostics)?;
    let sans = fields.get("sans", texts);
    let subjects = fields.get("subjects", texts);
    if !fields.has("sans") && !fields.has("subjects") {
        let message = "`client_cert` has neither `sans` nor `subjects`";
        let help = "add the names of the certificates that may send, for example \
                    `sans: [alertmanager.monitoring.svc]`";
        fields.diagnostics.add_with_help(Code::Missing, fields.location(), message, help);
    }
    fields.finish();
    let (sans, subjects) = (sans.unwrap_or_default(), subjects.unwrap_or_default());
    Some((ClientCertAuth { sans, subjects }, node.location.clone()))
}

/// Reads a list of texts, which must not be empty.
pub(super) fn texts(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    check_not_empty(node, "add one, or remove the key", diagnostics);
    Some(distinct(owned_text)(node, diagnostics)?.into_iter().map(|text| text.value).collect())
}

/// Reads a text, or a list of texts, which must not be empty.
pub(super) fn text_or_texts(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    match &node.kind {
        Kind::Text(_) => owned_text(node, diagnostics).map(|text| vec![text]),
        _ => texts(node, diagnostics),
    }
}
