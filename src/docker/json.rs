//! JSON as text: taken apart and changed in place, without a tree of values. Nothing here calls itself, so depth costs no stack.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde::de::IgnoredAny;

/// Bytes as text; what is none stands there as replacement characters.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Almost always all is, and that is seen sooner by who looks for nothing else.
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// Is this sound JSON? All else here takes texts that are; what it makes of others makes no sense.
pub(super) fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text).map(drop)
}

/// What a JSON string says. One that says nothing (half a surrogate pair) is taken as it is written.
pub(super) fn unquoted(raw: &str) -> Cow<'_, str> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or("");
    let (words, rest) = inner.as_bytes().as_chunks();
    let escaped = |word: &Word| places(word, b'\\') != 0;
    match words.iter().any(escaped) || rest.contains(&b'\\') {
        false => Cow::Borrowed(inner),
        true => serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned),
    }
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The members of a JSON object, names (with their quotation marks) and values as they are written. What is no object has none.
pub(super) fn members(text: &str) -> Members<'_> {
    let at = if text.starts_with('{') { 1 } else { text.len() };
    Members {
        text,
        at,
        is_wide: false,
    }
}

/// See [`members`].
#[derive(Clone, Debug)]
pub(super) struct Members<'t> {
    text: &'t str,
    at: usize,
    /// White space was seen between tokens.
    is_wide: bool,
}

impl<'t> Members<'t> {
    /// The next member's name. What is asked for next is its value, or the members of that.
    pub(super) fn name(&mut self) -> Option<&'t str> {
        let name = self.past(b',')?;
        if self.text.as_bytes()[name] != b'"' {
            return None;
        }
        self.at = string_end(self.text.as_bytes(), name)?;
        let name = &self.text[name..self.at];
        self.at = self.past(b':')?;
        Some(name)
    }

    /// The value behind a name.
    pub(super) fn value(&mut self) -> Option<&'t str> {
        let value = self.at;
        self.at = value_end(self.text.as_bytes(), value, &mut self.is_wide)?;
        Some(&self.text[value..self.at])
    }

    /// The members of the value behind a name, where that is an object.
    pub(super) fn inner(&self) -> Option<Members<'t>> {
        let opens = self.text.as_bytes().get(self.at) == Some(&b'{');
        opens.then_some(Members {
            text: self.text,
            at: self.at + 1,
            is_wide: self.is_wide,
        })
    }

    /// Goes on behind an object whose members were all taken.
    pub(super) fn leave(&mut self, mut inner: Members<'t>) {
        self.at = inner.past(b',').map_or(self.text.len(), |end| end + 1);
        self.is_wide = inner.is_wide;
    }

    /// Is there white space between the tokens that were taken?
    pub(super) fn is_wide(&self) -> bool {
        self.is_wide
    }

    /// The place from here on of what is neither white space nor this mark.
    fn past(&mut self, mark: u8) -> Option<usize> {
        for (length, byte) in self.text.as_bytes().get(self.at..)?.iter().enumerate() {
            match *byte {
                byte if byte == mark => {}
                byte if is_white(byte) => self.is_wide = true,
                _ => return Some(self.at + length),
            }
        }
        None
    }
}

impl<'t> Iterator for Members<'t> {
    type Item = (&'t str, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.name()?, self.value()?))
    }
}

/// The place behind the value that begins at `from`; notes white space between its tokens.
fn value_end(bytes: &[u8], from: usize, is_wide: &mut bool) -> Option<usize> {
    let (mut at, mut depth) = (from, 0_usize);
    loop {
        match *bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' => at += 1,
            byte if is_white(byte) => {
                *is_wide = true;
                at += 1;
            }
            _ => {
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || is_white(*byte);
                at += bytes[at..].iter().position(is_end)?;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

pub(super) fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Where a part of a text stands in it.
pub(super) fn place_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// A value's text without white space between its tokens.
pub(super) fn compact(text: &str) -> Cow<'_, str> {
    if !text.starts_with(['{', '[']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut cuts = Cuts::new(text);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at).unwrap_or(bytes.len()),
            byte => {
                if is_white(byte) {
                    cuts.replace(at, at + 1, "");
                }
                at += 1;
            }
        }
    }
    cuts.done()
}

/// The next string of a JSON text from `at` on: where it opens, and where the next token begins.
pub(super) fn next_string(text: &str, at: usize) -> Option<(usize, usize)> {
    let open = at + memchr(b'"', text.get(at..)?.as_bytes())?;
    Some((open, string_end(text.as_bytes(), open)?))
}

/// Bytes that are looked at together.
type Word = [u8; 8];

/// The high bit of each byte of a word that is this one, beginning with the lowest. Behind the first of them others may be wrong.
fn places(word: &Word, byte: u8) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let differs = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
    differs.wrapping_sub(ONES) & !differs & (ONES << 7)
}

/// So many words of a string are looked at before the rest is searched.
const SHORT: usize = 4;

/// The place behind the string that opens at `open`.
pub(super) fn string_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    // Most are short: a search that starts with vectors costs more than they do.
    for word in bytes.get(at..)?.as_chunks().0.iter().take(SHORT) {
        let found = places(word, b'"') | places(word, b'\\');
        if found != 0 {
            at += found.trailing_zeros() as usize / 8;
            break;
        }
        at += word.len();
    }
    loop {
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => {}
        }
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
    }
}

/// A text of which parts are replaced, from left to right; borrowed as long as none is.
pub(super) struct Cuts<'a> {
    text: &'a str,
    kept_to: usize,
    out: String,
    touched: bool,
}

impl<'a> Cuts<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cuts {
            text,
            kept_to: 0,
            out: String::new(),
            touched: false,
        }
    }

    pub(super) fn replace(&mut self, from: usize, to: usize, with: &str) {
        if !self.touched {
            self.out.reserve(self.text.len());
        }
        self.out.push_str(&self.text[self.kept_to..from]);
        self.out.push_str(with);
        self.kept_to = to;
        self.touched = true;
    }

    pub(super) fn done(mut self) -> Cow<'a, str> {
        if !self.touched {
            return Cow::Borrowed(self.text);
        }
        self.out.push_str(&self.text[self.kept_to..]);
        Cow::Owned(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],: ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[\\PC\"\\\\ ]{0,4}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_that_serde_finds(value in value(), pretty: bool) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).expect("it is a value"),
                false => value.to_string(),
            };
            let read = |raw| serde_json::from_str::<Value>(raw).expect("it is sound");
            let found: Map<String, Value> = members(&text)
                .map(|(name, raw)| (unquoted(name).into_owned(), read(raw)))
                .collect();
            prop_assert_eq!(found, value.as_object().cloned().unwrap_or_default());
            for (_, raw) in members(&text) {
                prop_assert_eq!(&text[place_in(&text, raw)..][..raw.len()], raw);
            }
            prop_assert_eq!(compact(&text), value.to_string());
            let mut all = members(&text);
            all.by_ref().for_each(drop);
            prop_assert_eq!(all.is_wide(), value.is_object() && compact(&text).len() != text.len());
        }

        #[test]
        fn no_text_brings_them_down(text in "[\\PC\"\\\\{}\\[\\],: ]{0,32}") {
            let text = format!("{{{text}");
            members(&text).for_each(drop);
        }
    }

    #[test]
    fn only_what_is_sound_is_taken() {
        for (text, sound) in [
            ("{}", true),
            (" [1, {}]\n", true),
            ("{", false),
            ("{} x", false),
        ] {
            assert_eq!(check(text).is_ok(), sound, "{text}");
        }
        assert_eq!(json!({"a": 1}).to_string(), compact("{ \"a\" : 1 }"));
    }
}
