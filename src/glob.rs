//! Globs: `*` for anything, `?` for a character, `[ab]`, `[a-z]` and `[!ab]` for one of some, `{ab,cd}` for one of these, and `\` before what is
//! meant as it stands.
//!
//! The crate `glob` matches. What it does not know, braces and `\`, is written in its words before.

use std::str::Chars;

use glob::{MatchOptions, Pattern};

/// Braces may stand for so many texts; each costs as much as a glob of its own.
const TEXTS: usize = 1000;

/// Does the case of ASCII letters count?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// It does.
    Counts,
    /// It does not.
    Ignored,
}

/// A set of globs, made ready to be asked.
#[derive(Clone, Debug)]
pub struct Globs {
    case: Case,
    patterns: Vec<Pattern>,
}

impl Globs {
    /// Reads globs.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn new<'p>(globs: impl IntoIterator<Item = &'p str>, case: Case) -> Result<Globs, String> {
        let mut patterns = Vec::new();
        for glob in globs {
            for text in without_braces(glob)? {
                patterns.push(Pattern::new(&text).map_err(|error| error.msg.to_owned())?);
            }
        }
        Ok(Globs { case, patterns })
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Does one of them stand for this text?
    pub fn fit(&self, text: &str) -> bool {
        let options = MatchOptions {
            case_sensitive: self.case == Case::Counts,
            require_literal_separator: false,
            require_literal_leading_dot: false,
        };
        let mut patterns = self.patterns.iter();
        patterns.any(|pattern| pattern.matches_with(text, options))
    }
}

/// The globs that one with braces stands for, in the crate's words.
fn without_braces(glob: &str) -> Result<Vec<String>, String> {
    // Of each brace that is open: what stands before it, and the alternatives that are read.
    let mut open: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut texts = vec![String::new()];
    let mut rest = glob.chars();
    while let Some(c) = rest.next() {
        match (c, open.last_mut()) {
            ('{', _) => {
                let before = std::mem::replace(&mut texts, vec![String::new()]);
                open.push((before, Vec::new()));
            }
            (',', Some((_, alternatives))) => {
                alternatives.append(&mut texts);
                texts.push(String::new());
            }
            ('}', _) => {
                let (before, mut alternatives) = open.pop().ok_or("a `}` has no `{`")?;
                alternatives.append(&mut texts);
                if before.len() * alternatives.len() > TEXTS {
                    return Err(format!("its braces stand for more than {TEXTS} texts"));
                }
                for mut text in before {
                    for end in &alternatives {
                        let begun = text.len();
                        append(&mut text, end);
                        texts.push(text.clone());
                        text.truncate(begun);
                    }
                }
            }
            _ => {
                let piece = piece(c, &mut rest)?;
                texts.iter_mut().for_each(|text| append(text, &piece));
            }
        }
    }
    match open.is_empty() {
        true => Ok(texts),
        false => Err("a `{` has no `}`".to_owned()),
    }
}

/// Two stars are no more than one here; to the crate they are.
fn append(text: &mut String, end: &str) {
    let ends_in_star = text.ends_with('*');
    text.push_str(if ends_in_star {
        end.trim_start_matches('*')
    } else {
        end
    });
}

/// What begins with this character and stands for one: a class, a character that is meant as it stands, or just a character.
fn piece(first: char, rest: &mut Chars<'_>) -> Result<String, String> {
    match first {
        '[' => class(rest),
        '\\' => {
            let plain = rest.next().ok_or("nothing stands behind its last `\\`")?;
            Ok(Pattern::escape(plain.encode_utf8(&mut [0; 4])))
        }
        _ => Ok(first.to_string()),
    }
}

/// What stands behind a `[`. A `]` that comes first is one of the characters.
fn class(rest: &mut Chars<'_>) -> Result<String, String> {
    let text = rest.as_str();
    let inner = text.strip_prefix(['!', '^']);
    let not = if inner.is_some() { "!" } else { "" };
    let inner = inner.unwrap_or(text);
    let end = inner.char_indices().skip(1).find(|(_, c)| *c == ']');
    let (end, _) = end.ok_or("a `[` has no `]`")?;
    *rest = inner[end + 1..].chars();
    Ok(format!("[{not}{}]", &inner[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(pattern: &str, case: Case, text: &str) -> bool {
        let globs = Globs::new([pattern], case).expect("it is a glob");
        globs.fit(text)
    }

    #[test]
    fn a_glob_stands_for_these_texts_and_not_for_those() {
        for (pattern, these, those) in [
            ("", &[""][..], &["a"][..]),
            ("web", &["web"], &["we", "webb", "Web", ""]),
            ("*", &["", "a", "a/b\n", "ä"], &[]),
            ("web-*", &["web-", "web-1", "web-*"], &["web", "a-web-1"]),
            ("*-1", &["-1", "web-1", "-1-1"], &["-12", "1"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc", "abcbc"], &["acb", "ab"]),
            ("**/b", &["a/b", "/b"], &["b"]),
            ("?", &["a", "ä", "?"], &["", "ab"]),
            ("a?c", &["abc", "a/c"], &["ac", "abbc"]),
            ("[ab]", &["a", "b"], &["c", "ab", "A"]),
            ("[a-cx]", &["a", "b", "c", "x"], &["d", "-"]),
            ("[-a][a-]", &["-a", "--", "aa"], &["ab"]),
            ("[]a][!]a]", &["]b", "a-"], &["]]", "aa", "b"]),
            ("[^ä-ö]", &["a", "ü"], &["ö", "ä", ""]),
            ("[.*?]", &[".", "*", "?"], &["a"]),
            ("{ab,cd}", &["ab", "cd"], &["a", "abcd", "ab,cd"]),
            ("x{a,b{c,d*}}y", &["xay", "xbcy", "xbdy", "xbd1y"], &["xby"]),
            ("*{.a,}*{b}", &[".ab", "b", "1.a2b"], &["", "a"]),
            ("{*a,b}*c", &["ac", "1a1c", "bc", "b1c"], &["1bc"]),
            ("a,b", &["a,b"], &["a"]),
            ("\\*\\{\\\\", &["*{\\"], &["{\\"]),
        ] {
            for text in these {
                assert!(fits(pattern, Case::Counts, text), "{pattern}: {text}");
            }
            for text in those {
                assert!(!fits(pattern, Case::Counts, text), "{pattern}: {text}");
            }
        }
    }

    #[test]
    fn case_is_ignored_where_it_is_to_be() {
        for (pattern, these, those) in [
            ("*_key", &["API_KEY", "api_key"][..], &["KEY"][..]),
            ("ä[A-Cx]", &["äb", "äX", "äC"], &["äD"]),
            ("[!a-c]", &["d"], &["a", "B"]),
            ("ß?", &["ßS"], &["SSS"]),
        ] {
            for text in these {
                assert!(fits(pattern, Case::Ignored, text), "{pattern}: {text}");
            }
            for text in those {
                assert!(!fits(pattern, Case::Ignored, text), "{pattern}: {text}");
            }
        }
    }

    #[test]
    fn of_a_set_one_is_enough_however_many_there_are() {
        let none: [&str; 0] = [];
        let empty = Globs::new(none, Case::Counts).expect("nothing is wrong");
        assert!(empty.is_empty() && !empty.fit(""));
        for count in [1, 7, 63, 64, 65, 500] {
            let patterns: Vec<String> = (0..count).map(|at| format!("*<{at}>?")).collect();
            let globs = Globs::new(patterns.iter().map(String::as_str), Case::Ignored);
            let globs = globs.expect("they are globs");
            for at in 0..count {
                assert!(globs.fit(&format!("ä<{at}>ö")), "{at} of {count}");
                assert!(!globs.fit(&format!("<{at}>")), "{at} of {count}");
            }
            assert!(!globs.fit(&format!("<{count}>1")), "{count}");
        }
    }

    #[test]
    fn what_is_no_glob_is_told_why() {
        for (pattern, fault) in [
            ("a[", "a `[` has no `]`"),
            ("[]", "a `[` has no `]`"),
            ("[a-", "a `[` has no `]`"),
            ("{a,{b}", "a `{` has no `}`"),
            ("a}", "a `}` has no `{`"),
            ("a\\", "nothing stands behind its last `\\`"),
            (
                &"{a,b}".repeat(64),
                "its braces stand for more than 1000 texts",
            ),
        ] {
            let error = Globs::new(["ok", pattern], Case::Counts).unwrap_err();
            assert_eq!(error, fault, "{pattern}");
        }
    }

    /// Slow, and easy to believe.
    fn plainly(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) if plainly(rest, text) => true,
            (Some(('*', _)), Some((_, text))) => plainly(pattern, text),
            (Some(('?', rest)), Some((_, text))) => plainly(rest, text),
            (Some((own, rest)), Some((c, text))) => own == c && plainly(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_plainest_matcher(pattern in "[ab*?]{0,9}", text in "[abä]{0,12}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let plain = plainly(&characters(&pattern), &characters(&text));
            prop_assert_eq!(fits(&pattern, Case::Counts, &text), plain);
        }

        #[test]
        fn no_pattern_and_no_text_bring_it_down(pattern in "[\\PC*?{}\\[\\],\\\\!-]{0,40}", text: String) {
            if let Ok(globs) = Globs::new([pattern.as_str()], Case::Ignored) {
                globs.fit(&text);
            }
        }
    }
}
