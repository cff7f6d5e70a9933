//! Texts in one piece of memory: a host has thousands of members in the store, and they are read, compared and dropped together.

use std::fmt;

/// Texts, in the order in which they came.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Words {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Words {
    /// Adds one.
    pub fn push(&mut self, word: &str) {
        self.text.push_str(word);
        self.ends.push(self.text.len());
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let word = &self.text[begin..*end];
            begin = *end;
            word
        })
    }

    /// Two and two together: names and values that alternate.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut words = self.iter();
        std::iter::from_fn(move || Some((words.next()?, words.next()?)))
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<'a> Extend<&'a str> for Words {
    fn extend<I: IntoIterator<Item = &'a str>>(&mut self, words: I) {
        words.into_iter().for_each(|word| self.push(word));
    }
}

impl<'a> FromIterator<&'a str> for Words {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        let mut all = Words::default();
        all.extend(words);
        all
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_out_as_they_went_in() {
        let all = ["ä", "", "b", "c"];
        let words: Words = all.into_iter().collect();
        assert!(words.iter().eq(all));
        assert!(words.pairs().eq([("ä", ""), ("b", "c")]));
        let odd: Words = all[..3].iter().copied().collect();
        assert!(odd.pairs().eq([("ä", "")]));
        assert!(Words::default().is_empty() && !odd.is_empty());
    }
}
