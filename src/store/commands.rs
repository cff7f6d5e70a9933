//! Commands as they go to Redis, one behind the other in one piece of memory: a batch has hundreds, and most of what they hold are documents.

use std::io::IoSlice;

use redis::{Cmd, Value};

/// About what stands around a word: a sign, its length, and two ends of a line.
const FRAME: usize = 8;

/// Encoded commands.
#[derive(Default)]
pub(super) struct Commands {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Commands {
    /// These.
    pub fn of(commands: &[Cmd]) -> Commands {
        let mut all = Commands::default();
        commands.iter().for_each(|command| all.push(command));
        all
    }

    /// Appends one.
    pub fn push(&mut self, command: &Cmd) {
        command.write_packed_command(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Appends one of these words, straight into the memory from where it is sent.
    pub fn push_words<'w>(&mut self, words: impl Iterator<Item = &'w str> + Clone) {
        let (mut count, mut bytes) = (0, 0);
        for word in words.clone() {
            count += 1;
            bytes += word.len();
        }
        self.begin(count, bytes);
        words.for_each(|word| self.word(word));
        self.end();
    }

    /// The same for one of a known size, word by word: so many of so many bytes in all.
    pub fn begin(&mut self, words: usize, bytes: usize) {
        self.bytes.reserve(FRAME + bytes + words * FRAME);
        self.head(b'*', words);
    }

    /// Its next word.
    pub fn word(&mut self, word: &str) {
        self.head(b'$', word.len());
        self.bytes.extend_from_slice(word.as_bytes());
    }

    /// It is whole.
    pub fn end(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
        self.ends.push(self.bytes.len());
    }

    /// What stands before words, how many there are, and before each, how long it is. The first line of a command is left open, and each word's begins
    /// with the end of what is before it: so a word takes two copies and not three.
    fn head(&mut self, sign: u8, number: usize) {
        // No number has more than 20 digits.
        let mut head = *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n";
        let end = head.len() - 2;
        let mut at = end;
        let mut rest = number;
        loop {
            at -= 1;
            head[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        at -= 1;
        head[at] = sign;
        if sign == b'*' {
            self.bytes.extend_from_slice(&head[at..end]);
        } else {
            at -= 2;
            head[at..at + 2].copy_from_slice(b"\r\n");
            self.bytes.extend_from_slice(&head[at..]);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One of them, to tell of it.
    pub fn get(&self, at: usize) -> Cmd {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut command = Cmd::new();
        if let Ok(Value::Array(words)) = redis::parse_redis_value(&self.bytes[begin..self.ends[at]])
        {
            for word in words {
                if let Value::BulkString(word) = word {
                    command.arg(word);
                }
            }
        }
        command
    }
}

/// Commands that go to Redis together: none of them is copied for that.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a>(pub &'a [&'a Commands]);

impl<'a> Pieces<'a> {
    /// How many commands there are.
    pub fn len(self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    /// What goes over the wire.
    pub fn slices(self) -> Vec<IoSlice<'a>> {
        let slices = self.0.iter().map(|piece| IoSlice::new(piece.bytes()));
        slices.collect()
    }

    /// One of the commands, to tell of it.
    pub fn get(self, mut at: usize) -> Cmd {
        for piece in self.0 {
            match at.checked_sub(piece.len()) {
                None => return piece.get(at),
                Some(rest) => at = rest,
            }
        }
        Cmd::new()
    }
}

impl Extend<Cmd> for Commands {
    fn extend<I: IntoIterator<Item = Cmd>>(&mut self, commands: I) {
        commands.into_iter().for_each(|command| self.push(&command));
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::plain;
    use super::*;

    #[test]
    fn they_come_out_as_they_went_in() {
        let commands = [plain(&["PING"]), plain(&["SET", "a\r\n", ""])];
        let mut all = Commands::of(&commands[..1]);
        all.push_words(["SET", "a\r\n", ""].into_iter());
        let expected = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$0\r\n\r\n";
        assert_eq!(all.bytes(), expected);
        assert_eq!((all.len(), all.is_empty()), (2, false));
        let (none, one) = (Commands::default(), Commands::of(&commands[..1]));
        let pieces = [&one, &none, &all];
        let pieces = Pieces(&pieces);
        assert_eq!(pieces.len(), 3);
        let sent: Vec<u8> = pieces
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        assert_eq!(sent, [one.bytes(), expected].concat());
        for (at, command) in [&commands[0], &commands[0], &commands[1]]
            .iter()
            .enumerate()
        {
            assert!(pieces.get(at).args_iter().eq(command.args_iter()));
        }
        assert_eq!(pieces.get(3).args_iter().count(), 0);
    }

    #[test]
    fn words_are_written_as_the_library_does() {
        for length in [0, 1, 9, 10, 99, 100, 101, 1_234, 100_000] {
            let long = "ä".repeat(length);
            let words: Vec<&str> = std::iter::repeat_n(&*long, length % 200 + 1).collect();
            let mut ours = Commands::default();
            ours.push_words(words.iter().copied());
            assert_eq!(ours.bytes(), plain(&words).get_packed_command());
        }
    }
}
