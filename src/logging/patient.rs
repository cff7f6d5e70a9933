//! Standard error, without waiting for who reads it.
//!
//! Log lines are written by the thread that has something to say, so that the last one before a crash comes out; but a reader that stalls (a stopped
//! terminal, a hung log driver) must hold nobody up. So each piece is written only when there is room for it. For a reader that is merely slow there
//! is a little patience; what finds no room is lost, and counted for the first line that finds some.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PIPE_BUF;

/// How long is waited for room in any second, by all threads together.
const PATIENCE: Duration = Duration::from_millis(50);
const PER: Duration = Duration::from_secs(1);

/// Writes whole lines, or none.
pub(super) struct Patient<W> {
    out: W,
    /// The line that tells how many are lost.
    told: Box<dyn Fn(u64) -> String + Send>,
    lost: u64,
    /// The last piece was not the end of its line.
    torn: bool,
    left: Duration,
    refilled: Instant,
}

impl<W> Patient<W> {
    pub(super) fn new(out: W, told: impl Fn(u64) -> String + Send + 'static) -> Self {
        Patient {
            out,
            told: Box::new(told),
            lost: 0,
            torn: false,
            left: PATIENCE,
            refilled: Instant::now(),
        }
    }
}

impl<W> fmt::Debug for Patient<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient")
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl<W: Write + AsFd> Patient<W> {
    /// Writes a line if there is room. A pipe with any room at all takes `PIPE_BUF` bytes at once; a longer line may be cut.
    fn line(&mut self, line: &[u8]) -> io::Result<bool> {
        let mut rest = line;
        while !rest.is_empty() {
            if !self.has_room() {
                return Ok(false);
            }
            let piece = &rest[..rest.len().min(PIPE_BUF)];
            match self.out.write(piece) {
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn has_room(&mut self) -> bool {
        let began = Instant::now();
        if began.duration_since(self.refilled) >= PER {
            self.refilled = began;
            self.left = PATIENCE;
        }
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: self.left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        // What cannot be asked is written to as ever; an error is told by the write itself.
        let room = poll(&mut fds, Some(&patience)).map_or(true, |ready| ready > 0);
        self.left = self.left.saturating_sub(began.elapsed());
        room
    }
}

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.torn && !self.line(b"\n")? {
            self.lost += 1;
            return Ok(line.len());
        }
        if self.lost > 0 && self.line((self.told)(self.lost).as_bytes())? {
            self.lost = 0;
        }
        if self.lost > 0 || !self.line(line)? {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, PipeWriter};

    use super::*;

    fn pair() -> (PipeReader, Patient<PipeWriter>) {
        let (reader, writer) = io::pipe().expect("a pipe is free");
        (
            reader,
            Patient::new(writer, |lost| format!("{lost} lost\n")),
        )
    }

    /// A line comes as one piece.
    fn say(log: &mut Patient<PipeWriter>, line: &str) {
        log.write_all(format!("{line}\n").as_bytes())
            .expect("it is open");
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up_and_is_told_what_it_missed() {
        let (reader, mut log) = pair();
        let began = Instant::now();
        let mut lines = 0;
        // A pipe holds 64 kB.
        for number in 0..20_000 {
            say(&mut log, &format!("line {number}"));
            lines += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{began:?}");
        let lost = log.lost;
        assert!((1..lines).contains(&lost), "{lost} of {lines}");

        let mut reader = BufReader::new(reader);
        let mut read = Vec::new();
        let mut next = || {
            let mut line = String::new();
            reader.read_line(&mut line).expect("it is open");
            read.push(line);
        };
        (0..lines - lost).for_each(|_| next());
        say(&mut log, "again");
        (0..2).for_each(|_| next());
        let whole = |(number, line): (usize, &String)| *line == format!("line {number}\n");
        let (last, kept) = read.split_at(read.len() - 2);
        assert!(last.iter().enumerate().all(whole), "{last:?}");
        assert_eq!(kept, [format!("{lost} lost\n"), "again\n".to_owned()]);
    }

    #[test]
    fn a_long_line_that_was_cut_is_ended_before_the_next() {
        let (reader, mut log) = pair();
        let long = "x".repeat(1 << 20);
        say(&mut log, &long);
        assert_eq!((log.lost, log.torn), (1, true));
        let mut reader = BufReader::new(reader);
        let mut line = vec![0; 60_000];
        io::Read::read_exact(&mut reader, &mut line).expect("it is open");
        say(&mut log, "next");
        drop(log);
        let lines: Vec<String> = reader.lines().map_while(Result::ok).collect();
        assert!(lines[0].chars().all(|letter| letter == 'x'));
        assert_eq!(lines[1..], ["1 lost", "next"]);
    }

    #[test]
    fn every_line_is_read_or_counted() {
        let (reader, mut log) = pair();
        let reader = std::thread::spawn(move || BufReader::new(reader).lines().count());
        for _ in 0..1000 {
            say(&mut log, &"y".repeat(3000));
        }
        let lost = log.lost;
        drop(log);
        let read = reader.join().expect("it does not panic");
        assert!(read as u64 + lost >= 1000, "{read} read, {lost} lost");
    }
}
