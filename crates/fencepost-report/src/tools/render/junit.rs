//! JUnit XML: one test case a finding, and one for each guarded program that had none. Only elements and attributes
//! that the strictest of the common readers knows (the schema of Jenkins' xUnit plugin).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::super::{Collection, Finding, Status};
use super::text;

pub(super) fn write(collection: &Collection, out: &mut dyn Write) -> fmt::Result {
    let mut suites: BTreeMap<String, Vec<&Finding>> = BTreeMap::new();
    for finding in &collection.findings {
        let exe = finding.document.process.exe.as_deref().unwrap_or("a program");
        suites.entry(file_name(exe).to_owned()).or_default().push(finding);
    }
    let guarded: BTreeSet<&str> = collection.starts.iter().filter_map(|start| start.exe.as_deref()).collect();
    for exe in guarded {
        suites.entry(file_name(exe).to_owned()).or_default();
    }
    let all = collection.findings.len() + suites.values().filter(|findings| findings.is_empty()).count();
    let failures = collection.failures().count();
    out.write_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
    writeln!(out, "<testsuites name=\"fencepost\" tests=\"{all}\" failures=\"{failures}\" errors=\"0\">")?;
    for (name, findings) in &suites {
        suite(name, findings, out)?;
    }
    out.write_str("</testsuites>\n")
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn suite(name: &str, findings: &[&Finding], out: &mut dyn Write) -> fmt::Result {
    let failures = findings.iter().filter(|finding| finding.counts()).count();
    let skipped = findings.len() - failures;
    let tests = findings.len().max(1);
    let name = escape(name);
    writeln!(
        out,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">"
    )?;
    if findings.is_empty() {
        writeln!(out, "    <testcase name=\"no memory error\" classname=\"{name}\"/>")?;
    }
    for finding in findings {
        case(&name, finding, out)?;
    }
    out.write_str("  </testsuite>\n")
}

fn case(class: &str, finding: &Finding, out: &mut dyn Write) -> fmt::Result {
    let document = &finding.document;
    let (kind, fingerprint) = (document.kind.name(), document.fingerprint.0);
    // Case names must differ within a suite, and stay the same from run to run.
    let title = match &finding.test {
        Some(test) => format!("{test}: {kind} {fingerprint:016x}"),
        None => format!("{kind} {fingerprint:016x}"),
    };
    write!(out, "    <testcase name=\"{}\" classname=\"{class}\"", escape(&title))?;
    out.write_str(">\n")?;
    match &finding.status {
        Status::New => {
            write!(out, "      <failure type=\"{kind}\" message=\"{}\">", escape(&document.message))?;
            writeln!(out, "{}</failure>", escape(&text::finding(finding, false)))?;
        }
        // As content: not every schema knows a message here.
        Status::Known => writeln!(out, "      <skipped>known from the baseline</skipped>")?,
        Status::Suppressed(reason) => {
            writeln!(out, "      <skipped>{}</skipped>", escape(&format!("suppressed: {reason}")))?;
        }
    }
    out.write_str("    </testcase>\n")
}

/// Text for XML, in content or in quotes. Characters that XML 1.0 cannot hold at all become `?`.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            control if control < ' ' => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(super::escape("a<b>&\"'\u{1}\u{1b}\n"), "a&lt;b&gt;&amp;&quot;&#39;??\n");
    }
}
