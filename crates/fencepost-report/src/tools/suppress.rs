//! Findings that are known and accepted, each with its reason.

use serde::Deserialize;

use super::restore;
use crate::parse::Document;

/// A rule that sets findings aside. All that it names must fit; it names at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// The kind of error, with `*` for any run of characters and `?` for any one.
    pub kind: Option<String>,
    /// A function in the stack of the error, or, for what has no such stack, of the allocation; the same pattern.
    pub function: Option<String>,
    /// A module (the path, or its last part) of one of those frames; the same pattern.
    pub module: Option<String>,
    /// A fingerprint, as reports print it.
    pub fingerprint: Option<String>,
    /// Why this is accepted. Must say something.
    pub reason: String,
}

impl Suppression {
    /// What is wrong with the rule, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        if self.reason.trim().is_empty() {
            return Some("a suppression needs a reason: say why the finding is accepted");
        }
        let named = [&self.kind, &self.function, &self.module, &self.fingerprint];
        if named.iter().all(|pattern| pattern.is_none()) {
            return Some("a suppression must name a kind, function, module or fingerprint");
        }
        None
    }

    /// Whether it fits a report.
    pub fn fits(&self, document: &Document) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_deref().is_none_or(|p| glob(p, text));
        if !fits(&self.kind, document.kind.name()) {
            return false;
        }
        let fingerprint = format!("{:#018x}", document.fingerprint.0);
        if self.fingerprint.as_deref().is_some_and(|wanted| wanted != fingerprint) {
            return false;
        }
        if self.function.is_none() && self.module.is_none() {
            return true;
        }
        // One frame has to fit both patterns: they describe one place.
        restore::telling_frames(document).iter().any(|frame| {
            let function = frame.function.as_deref().unwrap_or("");
            let module = frame.module.as_deref().unwrap_or("");
            let file = module.rsplit(['/', '\\']).next().unwrap_or("");
            fits(&self.function, function) && (fits(&self.module, module) || fits(&self.module, file))
        })
    }
}

impl std::fmt::Display for Suppression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [
            ("kind", &self.kind),
            ("function", &self.function),
            ("module", &self.module),
            ("fingerprint", &self.fingerprint),
        ];
        let mut between = "";
        for (name, pattern) in named {
            if let Some(pattern) = pattern {
                write!(f, "{between}{name} = \"{pattern}\"")?;
                between = ", ";
            }
        }
        write!(f, " (reason: {})", self.reason)
    }
}

/// Whether `text` as a whole fits `pattern`, where `*` stands for any run of characters and `?` for any one.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0_usize, 0_usize);
    // Where the last `*` stands, and how much it has swallowed so far: the only choice that is ever taken back.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || Some(wanted) == text.get(seen) => {
                at += 1;
                seen += 1;
            }
            _ => match &mut star {
                Some((place, swallowed)) => {
                    *swallowed += 1;
                    (at, seen) = (*place + 1, *swallowed);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, fits) in [
            ("demo::*", "demo::ring::push", true),
            ("demo::*", "my::demo::ring", false),
            ("*::push", "demo::ring::push", true),
            ("*push*", "push", true),
            ("p?sh", "push", true),
            ("p?sh", "psh", false),
            ("*a*b*c", "xxaxxbxxbxc", true),
            ("*a*b*c", "xxaxxbxxbxcd", false),
            ("", "", true),
            ("*", "", true),
            ("", "x", false),
            ("libz.so*", "libz.so.1.3", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
