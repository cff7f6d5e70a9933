//! Commands as they go to Redis, one behind the other in one piece of memory: a batch has hundreds, and most of what they hold are documents.

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

    /// Appends others.
    pub fn append(&mut self, others: &Commands) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes);
        self.ends.extend(others.ends.iter().map(|end| begin + end));
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
        all.append(&Commands::of(&commands[1..]));
        let expected = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$0\r\n\r\n";
        assert_eq!(all.bytes(), expected);
        assert_eq!((all.len(), all.is_empty()), (2, false));
        for (at, command) in commands.iter().enumerate() {
            assert!(all.get(at).args_iter().eq(command.args_iter()));
        }
    }
}
