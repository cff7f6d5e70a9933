//! Commands as they go to Redis, one behind the other in one piece of memory: a batch has hundreds, and most of what they hold are documents.

use std::io::IoSlice;

use redis::{Cmd, Value};

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
        let all = Commands::of(&commands);
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
}
