//! The rule table: which rule takes an alert, and what it makes of it. Pure, before any state.

use super::name::Name;
use super::rule::Rule;
use super::template::Templates;

/// All rules in their order, with the templates that they are made of.
#[derive(Debug)]
pub struct RuleTable {
    rules: Vec<Rule>,
    templates: Templates,
}

impl RuleTable {
    /// `rules` in their order; `templates` is what their templates were made with. Names are unique,
    /// which `config` has checked.
    pub fn new(rules: Vec<Rule>, templates: Templates) -> Self {
        Self { rules, templates }
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// A rule by its name.
    pub fn rule(&self, name: &Name) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name == *name)
    }

    /// The templates of the rules.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }
}
