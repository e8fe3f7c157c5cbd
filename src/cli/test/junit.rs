//! JUnit XML reports for CI systems.

use super::Outcome;

/// Formats the outcomes, with one `testsuite` per test file.
pub(super) fn to_xml(outcomes: &[Outcome]) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    let mut files: Vec<&str> = outcomes.iter().map(|outcome| outcome.file.as_str()).collect();
    files.dedup();
    for file in files {
        let of_file: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.file == file).collect();
        let failed = of_file.iter().filter(|outcome| !outcome.failures.is_empty()).count();
        let tests = of_file.len();
        text +=
            &format!("  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failed}\">\n", escaped(file));
        for outcome in of_file {
            let (name, file) = (escaped(&outcome.name), escaped(file));
            if outcome.failures.is_empty() {
                text += &format!("    <testcase classname=\"{file}\" name=\"{name}\"/>\n");
                continue;
            }
            text += &format!("    <testcase classname=\"{file}\" name=\"{name}\">\n");
            for failure in &outcome.failures {
                let (location, message) = (escaped(&failure.location), escaped(&failure.message));
                text += &format!("      <failure message=\"{location}\">{message}</failure>\n");
            }
            text.push_str("    </testcase>\n");
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// Escapes text for XML; characters that XML does not allow are replaced by U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'.. => escaped.push(c),
            _ => escaped.push('\u{FFFD}'),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::FailureReport;
    use super::*;

    #[test]
    fn names_and_messages_are_escaped() {
        let failure = FailureReport { location: "a:1:1".into(), message: "<x> \u{1}".into() };
        let failed = Outcome { file: "a&b.yaml".into(), name: "\"q\"".into(), failures: vec![failure] };
        let passed = Outcome { failures: Vec::new(), ..failed.clone() };
        insta::assert_snapshot!(to_xml(&[failed, passed]), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites>
          <testsuite name="a&amp;b.yaml" tests="2" failures="1">
            <testcase classname="a&amp;b.yaml" name="&quot;q&quot;">
              <failure message="a:1:1">&lt;x&gt; �</failure>
            </testcase>
            <testcase classname="a&amp;b.yaml" name="&quot;q&quot;"/>
          </testsuite>
        </testsuites>
        "#);
    }
}
