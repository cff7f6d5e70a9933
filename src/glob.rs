//! Globs: `*` for anything, `?` for a character, `[ab]`, `[a-z]` and `[!ab]` for one of some, `{ab,cd}` for one of these, and `\` before what is
//! meant as it stands.
//!
//! All globs of a set are asked in one pass over the text, with a bit for each place of each of them ("shift-and", Baeza-Yates and Gonnet 1992): the
//! time grows with the text and never with what a pattern makes of it.

/// Braces may stand for so many texts; each costs as much as a glob of its own.
const TEXTS: usize = 1000;

/// Sets of so many places are asked without a buffer from the heap.
const SMALL: usize = 4 * 64;

/// Does the case of letters count?
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
    /// What leads from each place to the next one; nothing from the last place of a glob.
    steps: Vec<Option<Step>>,
    /// The first places.
    first: Vec<u64>,
    /// The last places.
    last: Vec<u64>,
    /// The places at which a `*` stands: whatever comes, the text may still be there.
    stars: Vec<u64>,
    /// The places from which each ASCII character leads on, one row after the other.
    ascii: Vec<u64>,
}

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Any,
    Character(char),
    OneOf(Vec<(char, char)>),
    NoneOf(Vec<(char, char)>),
}

/// One of the texts that a glob stands for: a step to each next place, and whether there is a `*` before it.
#[derive(Clone, Default, Debug)]
struct Text {
    steps: Vec<(bool, Step)>,
    star: bool,
}

impl Globs {
    /// Reads globs. The error says what is wrong with the first that is none.
    pub fn new<'p>(
        patterns: impl IntoIterator<Item = &'p str>,
        case: Case,
    ) -> Result<Globs, String> {
        let mut steps = Vec::new();
        let (mut first, mut last, mut stars) = (Vec::new(), Vec::new(), Vec::new());
        for pattern in patterns {
            for text in texts(pattern)? {
                first.push(steps.len());
                for (star, step) in text.steps {
                    stars.extend(star.then_some(steps.len()));
                    steps.push(Some(step));
                }
                stars.extend(text.star.then_some(steps.len()));
                last.push(steps.len());
                steps.push(None);
            }
        }
        let words = steps.len().div_ceil(64);
        let mut globs = Globs {
            case,
            first: bits(words, &first),
            last: bits(words, &last),
            stars: bits(words, &stars),
            ascii: Vec::with_capacity(128 * words),
            steps,
        };
        for c in '\0'..='\x7f' {
            let row = bits(words, &globs.leads(c));
            globs.ascii.extend(row);
        }
        Ok(globs)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Does one of them stand for this text?
    pub fn fit(&self, text: &str) -> bool {
        match self.first.len() {
            0 => false,
            1 => self.walk(text, &mut [0]),
            2 => self.walk(text, &mut [0; 2]),
            words if words * 64 <= SMALL => self.walk(text, &mut [0; SMALL / 64][..words]),
            words => self.walk(text, &mut vec![0; words]),
        }
    }

    #[inline(always)] // With a fixed number of words it is several times as fast.
    fn walk(&self, text: &str, at: &mut [u64]) -> bool {
        at.copy_from_slice(&self.first);
        let words = at.len();
        let mut row_of_other;
        for c in text.chars() {
            let row = match c.is_ascii() {
                true => &self.ascii[c as usize * words..][..words],
                false => {
                    row_of_other = bits(words, &self.leads(c));
                    &row_of_other
                }
            };
            let (mut carry, mut anywhere) = (0, 0);
            for word in 0..words {
                let leads = at[word] & row[word];
                let stays = at[word] & self.stars[word];
                at[word] = leads << 1 | carry | stays;
                carry = leads >> 63;
                anywhere |= at[word];
            }
            if anywhere == 0 {
                return false;
            }
        }
        at.iter().zip(&self.last).any(|(at, last)| at & last != 0)
    }

    /// The places from which this character leads on.
    fn leads(&self, c: char) -> Vec<usize> {
        let spellings = match self.case {
            Case::Counts => vec![c],
            Case::Ignored => spellings(c),
        };
        let steps = self.steps.iter().enumerate();
        let leads = steps.filter(|(_, step)| {
            let step = step.as_ref();
            step.is_some_and(|step| step.admits(&spellings))
        });
        leads.map(|(place, _)| place).collect()
    }
}

impl Step {
    /// Does it lead on from a character that may be spelt in these ways?
    fn admits(&self, spellings: &[char]) -> bool {
        let within = |ranges: &[(char, char)]| {
            let mut ranges = ranges.iter();
            ranges.any(|(from, to)| spellings.iter().any(|c| (from..=to).contains(&c)))
        };
        match self {
            Step::Any => true,
            Step::Character(own) => spellings.contains(own),
            Step::OneOf(ranges) => within(ranges),
            Step::NoneOf(ranges) => !within(ranges),
        }
    }
}

/// A character as it is, and small and large where that is one character as well.
fn spellings(c: char) -> Vec<char> {
    let mut spellings = vec![c];
    if c.to_lowercase().len() == 1 {
        spellings.extend(c.to_lowercase());
    }
    if c.to_uppercase().len() == 1 {
        spellings.extend(c.to_uppercase());
    }
    spellings
}

fn bits(words: usize, places: &[usize]) -> Vec<u64> {
    let mut bits = vec![0; words];
    for place in places {
        bits[place / 64] |= 1 << (place % 64);
    }
    bits
}

/// What a glob stands for, its braces taken apart.
fn texts(pattern: &str) -> Result<Vec<Text>, String> {
    // Of each brace that is open: what stands before it, and the alternatives that are read.
    let mut open: Vec<(Vec<Text>, Vec<Text>)> = Vec::new();
    let mut texts = vec![Text::default()];
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let step = match (c, open.last_mut()) {
            ('{', _) => {
                open.push((std::mem::take(&mut texts), Vec::new()));
                texts.push(Text::default());
                continue;
            }
            (',', Some((_, alternatives))) => {
                alternatives.append(&mut texts);
                texts.push(Text::default());
                continue;
            }
            ('}', _) => {
                let (before, mut alternatives) = open.pop().ok_or("a `}` has no `{`")?;
                alternatives.append(&mut texts);
                if before.len() * alternatives.len() > TEXTS {
                    return Err(format!("its braces stand for more than {TEXTS} texts"));
                }
                texts = before
                    .iter()
                    .flat_map(|begin| alternatives.iter().map(|end| begin.with(end)))
                    .collect();
                continue;
            }
            ('*', _) => {
                texts.iter_mut().for_each(|text| text.star = true);
                continue;
            }
            ('?', _) => Step::Any,
            ('[', _) => class(&mut rest)?,
            ('\\', _) => Step::Character(rest.next().ok_or("nothing stands behind its last `\\`")?),
            (c, _) => Step::Character(c),
        };
        for text in &mut texts {
            text.push(step.clone());
        }
    }
    match open.is_empty() {
        true => Ok(texts),
        false => Err("a `{` has no `}`".to_owned()),
    }
}

impl Text {
    fn push(&mut self, step: Step) {
        self.steps.push((std::mem::take(&mut self.star), step));
    }

    /// This text, and behind it that one.
    fn with(&self, end: &Text) -> Text {
        let mut whole = self.clone();
        for (star, step) in &end.steps {
            whole.star |= star;
            whole.push(step.clone());
        }
        whole.star |= end.star;
        whole
    }
}

/// What stands behind a `[`. A `]` that comes first is one of the characters, a `-` first or last as well.
fn class(rest: &mut std::str::Chars) -> Result<Step, String> {
    const OPEN: &str = "a `[` has no `]`";
    let none_of = rest.as_str().starts_with(['!', '^']);
    if none_of {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let from = rest.next().ok_or(OPEN)?;
        if from == ']' && !ranges.is_empty() {
            break;
        }
        let mut ahead = rest.clone();
        let mut to = from;
        if ahead.next() == Some('-')
            && let Some(end) = ahead.next().filter(|end| *end != ']')
        {
            to = end;
            *rest = ahead;
        }
        if to < from {
            return Err(format!("`{from}-{to}` goes backwards"));
        }
        ranges.push((from, to));
    }
    Ok(match none_of {
        true => Step::NoneOf(ranges),
        false => Step::OneOf(ranges),
    })
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
            ("Ä[A-Cx]", &["äb", "ÄX", "ÄC"], &["ÄD"]),
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
            ("[z-a]", "`z-a` goes backwards"),
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
