//! JSON as text: taken apart and changed in place, without a tree of values. Nothing here calls itself, so depth costs no stack.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a JSON string says. One that says nothing (half a surrogate pair) is taken as it is written.
pub(super) fn unquoted(raw: &str) -> Cow<'_, str> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or("");
    if memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The members of a JSON object, names (with their quotation marks) and values as they are written.
pub(super) fn members(text: &str) -> Result<Vec<(&str, &str)>, serde_json::Error> {
    let mut members = Vec::with_capacity(8);
    each_member(text, |name, value| members.push((name, value)))?;
    Ok(members)
}

/// Shows the members of a JSON object, one after the other. After an error some of them have been shown.
pub(super) fn each_member<'t>(
    text: &'t str,
    show: impl FnMut(&'t str, &'t str),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Members(show))?;
    deserializer.end()
}

struct Members<F>(F);

impl<'t, F: FnMut(&'t str, &'t str)> Visitor<'t> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            self.0(name.get(), value.get());
        }
        Ok(())
    }
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
            b' ' | b'\t' | b'\n' | b'\r' => {
                cuts.replace(at, at + 1, "");
                at += 1;
            }
            _ => at += 1,
        }
    }
    cuts.done()
}

/// The next string of a JSON text from `at` on: where it opens, and where the next token begins.
pub(super) fn next_string(text: &str, at: usize) -> Option<(usize, usize)> {
    let open = at + memchr(b'"', text.get(at..)?.as_bytes())?;
    Some((open, string_end(text.as_bytes(), open)?))
}

/// The place behind the string that opens at `open`.
pub(super) fn string_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
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
