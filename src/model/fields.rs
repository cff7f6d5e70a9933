//! Names and values in one piece of memory: a document has a hundred of them, an event twenty, and they come and go together.

use std::{fmt, mem};

use smallvec::SmallVec;

/// Names and values, in the order in which they came.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Fields {
    text: String,
    /// Where each name and where each value ends. An event's stand in it, and take no memory of their own.
    ends: SmallVec<[(u32, u32); 8]>,
}

impl Fields {
    /// None yet, and room for so many of so many bytes in all.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Fields {
            text: String::with_capacity(bytes),
            ends: SmallVec::with_capacity(fields),
        }
    }

    /// Adds one.
    pub fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        self.end_with(value);
    }

    /// Adds one; its name is a prefix and what is written in lower case, as far as it is ASCII.
    pub fn push_lower(&mut self, prefix: &str, name: &str, value: &str) {
        self.text.push_str(prefix);
        let begin = self.text.len();
        self.text.push_str(name);
        self.text[begin..].make_ascii_lowercase();
        self.end_with(value);
    }

    /// Adds the value to the name that was written. Answers and lines are cut long before 4 GiB.
    fn end_with(&mut self, value: &str) {
        let name_end = self.text.len() as u32;
        self.text.push_str(value);
        self.ends.push((name_end, self.text.len() as u32));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.places()
            .map(|(begin, name_end, end)| (&self.text[begin..name_end], &self.text[name_end..end]))
    }

    /// Where each begins, where its name ends, and where it ends.
    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
        let mut begin = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let end = end as usize;
            (mem::replace(&mut begin, end), name_end as usize, end)
        })
    }

    /// The value of the last field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named(name).last()
    }

    /// The value of the first one.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.named(name).next()
    }

    /// The values of a name. Where its length differs, nothing is read.
    fn named(&self, name: &str) -> impl Iterator<Item = &str> {
        let is_named = move |&(begin, name_end, _): &(usize, usize, usize)| {
            name_end - begin == name.len() && self.text[begin..name_end] == *name
        };
        let named = self.places().filter(is_named);
        named.map(|(_, name_end, end)| &self.text[name_end..end])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes names and values have.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut all = Fields::default();
        for (name, value) in fields {
            all.push(name.as_ref(), value.as_ref());
        }
        all
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_out_as_they_went_in() {
        let mut fields = Fields::with_capacity(1, 1);
        assert!(fields.is_empty() && fields.get("").is_none());
        fields.push_lower("config_", "ÄB", "Ü=1");
        fields.push_lower("", "", "");
        fields.push_lower("", "ID", "a");
        fields.push("id", "b");
        fields.push("Id", "c");
        let all = [
            ("config_Äb", "Ü=1"),
            ("", ""),
            ("id", "a"),
            ("id", "b"),
            ("Id", "c"),
        ];
        assert!(fields.iter().eq(all));
        assert_eq!((fields.len(), fields.bytes()), (5, 23));
        assert_eq!((fields.get("id"), fields.get("Id")), (Some("b"), Some("c")));
        assert_eq!((fields.first("id"), fields.first("ID")), (Some("a"), None));
        assert_eq!(all.into_iter().collect::<Fields>(), fields);
    }
}
