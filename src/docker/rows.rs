//! The answer to a list of containers, row by row as it comes: it may have megabytes, and what lies in memory is decoded several times as fast as what
//! is read byte by byte.

use std::io::{self, Read};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Deserializer;

use super::json::is_white;
use super::wire::{WireError, place};
use crate::model::{ContainerId, Row};

/// So much of it is read at once, in bytes; more where a row is longer.
const PIECE: usize = 64 << 10;

/// A longer row is none. Those of Docker have a name and a value for each label.
const LONGEST: usize = 16 << 20;

/// Decodes it; an empty list may be `null`. The outer error is that of reading it.
pub fn rows(body: impl Read) -> io::Result<Result<Vec<Row>, WireError>> {
    in_pieces(body, PIECE)
}

fn in_pieces(body: impl Read, piece: usize) -> io::Result<Result<Vec<Row>, WireError>> {
    let mut list = List {
        body,
        piece,
        text: Vec::new(),
        at: 0,
    };
    let mut rows = Vec::new();
    match list.read(&mut rows) {
        Ok(()) => Ok(Ok(rows)),
        Err(Fault::Unread(error)) => Err(error),
        Err(Fault::Bad(what)) => {
            let behind = rows.len();
            let text = format!("failed to decode list of containers behind row {behind}: {what}");
            Ok(Err(WireError { text }))
        }
    }
}

#[derive(Deserialize)]
struct WireRow {
    #[serde(rename = "Id")]
    id: String,
    #[serde(default, rename = "State")]
    state: Option<String>,
}

impl From<WireRow> for Row {
    fn from(row: WireRow) -> Row {
        Row {
            id: ContainerId::from(row.id.as_str()),
            // The second line holds the words that only Podman has; `removing` follows an end on both.
            running: !matches!(
                row.state.as_deref().unwrap_or(""),
                "created"
                    | "exited"
                    | "dead"
                    | "removing"
                    | "configured"
                    | "initialized"
                    | "stopped"
            ),
            member: true,
        }
    }
}

/// A list that is being read.
struct List<R> {
    body: R,
    piece: usize,
    text: Vec<u8>,
    /// All before this was taken.
    at: usize,
}

enum Fault {
    Unread(io::Error),
    Bad(String),
}

impl Fault {
    fn bad(what: &str) -> Fault {
        Fault::Bad(what.to_owned())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Unread(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(cause: serde_json::Error) -> Self {
        Fault::Bad(place(&cause))
    }
}

impl<R: Read> List<R> {
    fn read(&mut self, rows: &mut Vec<Row>) -> Result<(), Fault> {
        if self.peek()? != Some(b'[') {
            self.value::<()>()?;
            return self.end();
        }
        self.at += 1;
        if self.peek()? == Some(b']') {
            self.at += 1;
            return self.end();
        }
        loop {
            rows.push(self.value::<WireRow>()?.into());
            let Some(mark) = self.peek()? else {
                return Err(Fault::bad("it ends too early"));
            };
            self.at += 1;
            match mark {
                b',' => {}
                b']' => return self.end(),
                _ => return Err(Fault::bad("it is not JSON")),
            }
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(Fault::bad("something follows the list")),
        }
    }

    /// The first byte that is no white space, if there is any.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let rest = &self.text[self.at..];
            match rest.iter().position(|byte| !is_white(*byte)) {
                Some(length) => {
                    self.at += length;
                    return Ok(Some(self.text[self.at]));
                }
                None => self.at = self.text.len(),
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Takes a value. What is none may be the beginning of one: it is tried again with more of the text.
    fn value<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        while self.peek()?.is_some() {
            let mut values = Deserializer::from_slice(&self.text[self.at..]).into_iter();
            let value = values.next();
            let length = values.byte_offset();
            match value {
                Some(Ok(value)) => {
                    self.at += length;
                    return Ok(value);
                }
                Some(Err(cause)) if cause.is_eof() && self.text.len() > LONGEST => {
                    return Err(Fault::bad("it is too long"));
                }
                Some(Err(cause)) if self.text.len() > LONGEST || !self.more()? => {
                    return Err(cause.into());
                }
                _ => {}
            }
        }
        Err(Fault::bad("it ends too early"))
    }

    /// Reads on: at least as much as is left, so that a long row is not tried again at each piece. False at the end.
    fn more(&mut self) -> io::Result<bool> {
        self.text.drain(..self.at);
        self.at = 0;
        let length = self.piece.max(self.text.len()) as u64;
        let read = self
            .body
            .by_ref()
            .take(length)
            .read_to_end(&mut self.text)?;
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(list: &[u8]) -> Result<Vec<Row>, WireError> {
        rows(list).expect("bytes can be read")
    }

    #[test]
    fn a_list_tells_what_runs() {
        let states = [
            ("created", false),
            ("running", true),
            ("paused", true),
            ("restarting", true),
            ("removing", false),
            ("exited", false),
            ("dead", false),
            ("configured", false),
            ("stopped", false),
        ];
        for (state, running) in states {
            let list =
                format!(r#"[{{"Id":"abc","Names":["/x"],"State":"{state}","Labels":null}}]"#);
            let row = Row {
                id: "abc".into(),
                running,
                member: true,
            };
            assert_eq!(read(list.as_bytes()), Ok(vec![row]), "{state}");
        }
        assert_eq!(read(b"null\n"), Ok(vec![]));
        assert_eq!(read(b"[]"), Ok(vec![]));
        assert!(read(br#"[{"State":"running"}]"#).is_err());
        assert!(read(br#"{"message":"no"}"#).is_err());
        assert!(read(br#"[{"Id":"abc","State":"running"}"#).is_err());
        assert!(read(br#"[{"Id":"abc"}] more"#).is_err());
    }

    #[test]
    fn a_fault_is_told_with_its_row() {
        for (list, told) in [
            ("", "0: it ends too early"),
            ("[", "0: it ends too early"),
            ("[{\"Id\":\"a\"}", "1: it ends too early"),
            ("[{\"Id\":\"a\"},", "1: it ends too early"),
            ("[{\"Id\":\"a\"},]", "1: it is not JSON (line 1, column 1)"),
            ("[{\"Id\":\"a\"} {}]", "1: it is not JSON"),
            (
                "[{\"Id\":\"a\"},\n{\"Id\":1}]",
                "1: a field is missing or of the wrong type (line 1, column 7)",
            ),
            ("[] []", "0: something follows the list"),
            ("nul", "0: it ends too early (line 1, column 3)"),
            ("<html>", "0: it is not JSON (line 1, column 1)"),
        ] {
            let expected = format!("failed to decode list of containers behind row {told}");
            let fault = read(list.as_bytes()).map_err(|error| error.text);
            assert_eq!(fault, Err(expected), "{list}");
        }
    }

    #[test]
    fn a_row_has_an_end() {
        let long = || io::repeat(b'a').take(LONGEST as u64 * 8);
        let fault = rows((&b"[{\"Id\":\""[..]).chain(long())).expect("bytes can be read");
        let text = "failed to decode list of containers behind row 0: it is too long";
        assert_eq!(fault.map_err(|error| error.text), Err(text.to_owned()));
    }

    #[test]
    fn rows_may_be_cut_anywhere() {
        let label = "{\\\"[\\u00e9\\ud83d\\ude00ä".repeat(20);
        let row = |id: usize| {
            format!(
                " \n{{\"Id\":\"{id}\",\"Created\":-62135596800,\"SizeRw\":-1.5e+3,\"Labels\":{{\"a\":\"{label}\",\"b\":null}},\"Ports\":[true,false,0],\"State\":\"exited\"}} "
            )
        };
        let list = format!(" [{}]\n", (0..3).map(row).collect::<Vec<_>>().join(","));
        for piece in 1..list.len() {
            let found = in_pieces(list.as_bytes(), piece).expect("bytes can be read");
            let found = found.expect("it is a list");
            let ids: Vec<&str> = found.iter().map(|row| row.id.as_str()).collect();
            assert_eq!(ids, ["0", "1", "2"], "{piece}");
            assert!(found.iter().all(|row| !row.running));
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_bad_list() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
        let error = rows((&b"[{\"Id\":\"a\"},"[..]).chain(Broken)).expect_err("it broke");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn nothing_of_the_corpus_brings_it_down() {
        for (_, bytes) in crate::corpus::corpus("answers") {
            let _ = read(&bytes);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes: Vec<u8>, piece in 1..20_usize) {
            let _ = in_pieces(&*bytes, piece);
        }

        #[test]
        fn what_serde_takes_is_taken_and_nothing_else(
            list in "\\[?( ?\\{\"Id\": ?\"[a-c]{1,3}\"(,\"State\":(\"exited\"|null|3))?(,\"a\":-?[0-9.]{0,2}(e-1)?)?\\}[, ]?){0,3}\\]?( |x)?|null",
            piece in 1..20_usize,
        ) {
            let expected = serde_json::from_str::<Option<Vec<WireRow>>>(&list);
            let expected = expected.map(|rows| rows.unwrap_or_default().into_iter().map(Row::from).collect());
            let found = in_pieces(list.as_bytes(), piece).expect("bytes can be read");
            prop_assert_eq!(found.ok(), expected.ok());
        }
    }
}
