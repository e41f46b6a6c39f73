//! One page that needs nothing else: no script, no font, no picture from anywhere.

use std::fmt::{self, Write};

use fencepost_record::Which;

use super::super::{Collection, Finding, Status, restore};
use super::junit::escape;
use super::{Setting, place, text};
use crate::parse::Frame;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}\
h2{font-size:1.1em;margin:.2em 0}code,pre,td{font-family:ui-monospace,monospace;font-size:.85em}\
pre{overflow-x:auto;padding:.8em;border-radius:6px;background:#8881}\
article{border:1px solid #8885;border-left:5px solid #c22;border-radius:6px;padding:.8em 1em;margin:1em 0}\
article.aside{border-left-color:#888;opacity:.75}.hit{background:#c223;display:inline-block;width:100%}\
.faint{opacity:.65}table{border-collapse:collapse}td{padding:0 .8em .1em 0;vertical-align:top}\
details{margin:.4em 0}summary{cursor:pointer}";

pub(super) fn write(collection: &Collection, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    let failures = collection.failures().count();
    let title = match failures {
        0 => "no memory error".to_owned(),
        1 => "1 memory error".to_owned(),
        more => format!("{more} memory errors"),
    };
    write!(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(out, "<title>fencepost: {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>")?;
    writeln!(out, "<h1>fencepost: {title}</h1>")?;
    let (guarded, total) = collection.coverage();
    if total > 0 {
        let (percent, processes) = (text::percent(guarded, total), collection.summaries.len());
        writeln!(out, "<p>{guarded} of {total} blocks guarded ({percent}%), processes: {processes}.</p>")?;
    }
    let (counting, aside): (Vec<_>, Vec<_>) =
        collection.findings.iter().partition(|finding| finding.counts());
    for finding in counting.into_iter().chain(aside) {
        article(finding, setting, out)?;
    }
    out.write_str("</body>\n</html>\n")
}

fn article(finding: &Finding, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    let document = &finding.document;
    let class = if finding.counts() { "" } else { " class=\"aside\"" };
    writeln!(out, "<article{class} id=\"f{:016x}\">", document.fingerprint.0)?;
    writeln!(out, "<h2>{}: {}</h2>", document.kind.name(), escape(&document.message))?;
    let mut facts = Vec::new();
    facts.extend(finding.test.as_ref().map(|test| format!("in test <code>{}</code>", escape(test))));
    facts.extend(document.process.exe.as_ref().map(|exe| format!("<code>{}</code>", escape(exe))));
    if finding.times > 1 {
        facts.push(format!("seen {} times", finding.times));
    }
    match &finding.status {
        Status::New => {}
        Status::Known => facts.push("known from the baseline".to_owned()),
        Status::Suppressed(reason) => facts.push(format!("suppressed: {}", escape(reason))),
    }
    writeln!(out, "<p class=\"faint\">{}</p>", facts.join(" · "))?;
    source(finding, setting, out)?;
    for (which, what) in place::history(document).into_iter().rev() {
        let open = if which == Which::Fault { " open" } else { "" };
        writeln!(out, "<details{open}><summary>{}</summary>\n<table>", escape(&what))?;
        for (number, frame) in restore::stack_of(document, which).iter().enumerate() {
            row(number, frame, setting, out)?;
        }
        writeln!(out, "</table></details>")?;
    }
    let whole = escape(&text::finding(finding, false));
    writeln!(out, "<details><summary>The whole report</summary>\n<pre>{whole}</pre></details>\n</article>")
}

fn source(finding: &Finding, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    let Some(source) = &finding.document.source else { return Ok(()) };
    writeln!(out, "<p><code>{}</code></p>", escape(&place::relative(&source.file, setting).0))?;
    out.write_str("<pre>")?;
    for line in &source.lines {
        let (open, close) = if line.hit { ("<span class=\"hit\">", "</span>") } else { ("", "") };
        writeln!(out, "{open}{:>5} | {}{close}", line.number, escape(&line.text))?;
    }
    out.write_str("</pre>\n")
}

fn row(number: usize, frame: &Frame, setting: &Setting, out: &mut dyn Write) -> fmt::Result {
    let position = place::position(frame, setting).unwrap_or_default();
    let inlined = if frame.inlined { " <span class=\"faint\">(inlined)</span>" } else { "" };
    writeln!(
        out,
        "<tr><td>#{number}</td><td>{}{inlined}</td><td class=\"faint\">{}</td></tr>",
        escape(&place::function(frame)),
        escape(&position)
    )
}
