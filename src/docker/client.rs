//! What an engine is asked: who it is, what happens, what there is, each with its time limit.
//!
//! A [`Connection`] serves one attempt of a reader (`/_ping`, `/info`, `/version`, then `/events` until it ends) and is made anew for each. A
//! [`Client`] serves a syncer (list, inspect, ping) on a kept connection. Every call blocks its thread; [`Closer::close`] on another thread ends it at
//! once, but for a name that is being looked up or a connect that is under way.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::connect::is_timeout;
use super::http::{Http, Reading, authority};
use super::socket::Closer;
pub use super::stream::Events;
use super::{rows, time, wire};
use crate::model::{Address, ContainerId, Hello, Row};

/// The newest version of the API that this agent was tried with; an engine that knows less is asked in its own.
pub const MAX_API: &str = "1.51";

/// A ping costs the engine nothing: if it is not answered by then, the engine listens and does not serve.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// `/info` asks the storage driver and runs the runtimes for their versions: seconds on a machine under load.
pub const INFO_LIMIT: Duration = Duration::from_secs(15);
/// The headers of `/events` come before anything is looked for.
const EVENTS_LIMIT: Duration = Duration::from_secs(5);
/// 10,000 rows take a quiet engine about a second. A longer wait than this would only hold up the inspects behind it.
pub const LIST_LIMIT: Duration = Duration::from_secs(20);

/// How much is read at once: an inspect (7 kB) is, and an event many times.
const CLIENT_BYTES: usize = 16 << 10;
const STREAM_BYTES: usize = 8 << 10;

/// About 100,000 rows.
const LIST_CAP: u64 = 256 << 20;
/// A thousand times an ordinary inspect.
const INSPECT_CAP: u64 = 16 << 20;
/// More than any `/info`, and enough of an error's body to find its message.
const SMALL_CAP: u64 = 1 << 20;

/// Why an engine did not answer as it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DockerError {
    /// What sort of failure it is.
    pub kind: DockerErrorKind,
    /// One line: ``failed to <verb> <noun> `<engine>`: <cause>``, with the remedy where the user can act. Two errors of one cause have one text.
    pub text: String,
}

/// The sorts of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DockerErrorKind {
    /// No answer, or nothing more on a stream, within the limit.
    Timeout,
    /// There is no way to the engine: no socket, no permission, nobody listens, no such host.
    Refused,
    /// It answered with this status instead of 200.
    Status(u16),
    /// We closed the connection ourselves.
    Closed,
    /// The connection broke, in the middle of an answer or before.
    Broken,
    /// It answered what makes no sense.
    BadAnswer,
    /// One line of `/events` made no sense; the stream goes on.
    BadLine,
}

impl fmt::Display for DockerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for DockerError {}

/// Lists and inspects, on a connection that is kept.
#[derive(Debug)]
pub struct Client {
    way: Way,
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(address: &Address) -> Client {
        let way = Way::new(address, CLIENT_BYTES);
        Client { way }
    }

    /// One with a connection of its own, closed by the same [`Closer`].
    pub fn another(&self) -> Client {
        let http = self.way.http.another();
        Client { way: Way { http } }
    }

    /// What frees a thread that is blocked in one of the calls below.
    pub fn closer(&self) -> Closer {
        self.way.http.closer().clone()
    }

    /// Does the engine answer at all, whatever it says?
    pub fn ping(&mut self) -> Result<(), DockerError> {
        let by = Instant::now() + PING_LIMIT;
        self.way.get("ping", "/_ping", by)?;
        self.way.said(by);
        Ok(())
    }

    /// Lists containers: with `all` the stopped ones too, otherwise Docker's default list; those that all `filters` (Docker's own, name and
    /// value) leave in; with `only` that one at most. `limit` is for the whole call.
    pub fn list(
        &mut self,
        api_version: &str,
        all: bool,
        filters: &[(String, String)],
        only: Option<&ContainerId>,
        limit: Duration,
    ) -> Result<Vec<Row>, DockerError> {
        let action = "list the containers of";
        let by = Instant::now() + limit;
        let path = list_path(api_version, all, filters, only);
        match self.way.get(action, &path, by)? {
            200 => {}
            status => return Err(self.way.refused(action, status, by)),
        }
        let body = Reading::of(&mut self.way.http, by, LIST_CAP);
        let mut rows = rows::rows(body)
            .map_err(|cause| self.way.failed(action, cause))?
            .map_err(|cause| self.way.bad_answer(action, cause))?;
        if let Some(only) = only {
            rows.retain(|row| row.id == *only);
        }
        Ok(rows)
    }

    /// The answer to an inspect, as it came. `None`: there is no such container. `limit` is for the whole call.
    pub fn inspect(
        &mut self,
        api_version: &str,
        id: &ContainerId,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, DockerError> {
        let mut body = Vec::new();
        let found = self.inspect_first(&mut body, api_version, [id].into_iter(), limit)?;
        Ok(found.then_some(body))
    }

    /// The same for who asks for many: inspects the first of these, whatever `body` held is replaced, and has the engine work on the others, which
    /// are to be asked for next. False: there is no such container.
    pub fn inspect_first<'i>(
        &mut self,
        body: &mut Vec<u8>,
        api_version: &str,
        ids: impl Iterator<Item = &'i ContainerId>,
        limit: Duration,
    ) -> Result<bool, DockerError> {
        let action = "inspect a container of";
        let by = Instant::now() + limit;
        let path =
            |id: &ContainerId| format!("/v{api_version}/containers/{}/json", escaped(id.as_str()));
        let paths: Vec<String> = ids.map(path).collect();
        match self.way.get_first(action, &paths, by)? {
            200 => {
                self.way.read(body, action, by, INSPECT_CAP)?;
                Ok(true)
            }
            // Only the engine's own word makes a container gone: a proxy that knows no such page says 404 as well.
            404 => match self.way.said(by) {
                Some(said) if said.to_lowercase().contains("no such container") => Ok(false),
                said => Err(self.way.told(action, 404, said)),
            },
            status => Err(self.way.refused(action, status, by)),
        }
    }
}

/// One attempt to follow an engine.
#[derive(Debug)]
pub struct Connection {
    way: Way,
}

impl Connection {
    /// Connects to nothing yet.
    pub fn new(address: &Address) -> Connection {
        let way = Way::new(address, STREAM_BYTES);
        Connection { way }
    }

    /// What frees a thread that is blocked in one of the calls below, or in [`Events::next`].
    pub fn closer(&self) -> Closer {
        self.way.http.closer().clone()
    }

    /// Asks the engine who it is and settles the version to speak: the lower of [`MAX_API`] and its own.
    ///
    /// An engine behind a proxy that keeps `/info` or `/version` to itself is taken without what they tell; its clock is then that of the
    /// `Date` header. No answer is waited for longer than `limit`.
    pub fn hello(&mut self, limit: Duration) -> Result<Hello, DockerError> {
        self.hello_again(&Hello::default(), limit)
    }

    /// The same of an engine that said `before` and has been there since: what has not changed is not asked for. moby starts two programs to answer
    /// `/version`, and two more for `/info`, where alone its clock stands.
    pub fn hello_again(&mut self, before: &Hello, limit: Duration) -> Result<Hello, DockerError> {
        let mut hello = self.greet(limit)?;
        if hello.engine_id == before.engine_id && !before.docker_version.is_empty() {
            hello.docker_version.clone_from(&before.docker_version);
            return Ok(hello);
        }
        let action = "ask for `/version` of";
        let path = format!("/v{}/version", hello.api_version);
        if let Some(body) = self.unless_forbidden(action, &path, limit)? {
            hello.docker_version =
                wire::version(&body).map_err(|cause| self.way.bad_answer(action, cause))?;
        }
        Ok(hello)
    }

    fn greet(&mut self, limit: Duration) -> Result<Hello, DockerError> {
        let by = Instant::now() + PING_LIMIT.min(limit);
        let status = self.way.get("ping", "/_ping", by)?;
        let header = |name: &str| self.way.http.header(name).unwrap_or_default();
        let theirs = header("Api-Version").to_owned();
        let date_ns = time::http_date_ns(header("Date")).unwrap_or(0);
        if matches!(status, 300..400 | 404) {
            let cause = format!(
                "status {status}: something else than a Docker engine answers there; give the engine's own host and port"
            );
            let kind = DockerErrorKind::Status(status);
            return Err(self.way.error(kind, "ping", cause));
        }
        self.way.body_of_200(status, "ping", by)?;
        let Some(api_version) = lower_version(&theirs) else {
            let cause = "it names no Api-Version; is it a Docker engine?";
            return Err(self.way.bad_answer("ping", cause));
        };

        let action = "ask for `/info` of";
        let path = format!("/v{api_version}/info");
        let mut hello = match self.unless_forbidden(action, &path, limit)? {
            Some(body) => wire::info(&body).map_err(|cause| self.way.bad_answer(action, cause))?,
            None => Hello::default(),
        };
        if hello.clock_ns == 0 {
            hello.clock_ns = date_ns;
        }
        hello.api_version = api_version;
        Ok(hello)
    }

    /// Opens `/events` from `since_ns` to `until_ns`, both inclusive and in ns of the engine's clock.
    pub fn events(
        mut self,
        api_version: &str,
        since_ns: i64,
        until_ns: i64,
    ) -> Result<Events, DockerError> {
        let action = Events::ACTION;
        let by = Instant::now() + EVENTS_LIMIT;
        let (since, until) = (stamp(since_ns), stamp(until_ns));
        let path = format!("/v{api_version}/events?since={since}&until={until}");
        match self.way.get(action, &path, by)? {
            200 => Ok(Events::new(self.way)),
            status => Err(self.way.refused(action, status, by)),
        }
    }

    /// The body of an answer that a proxy may refuse to give.
    fn unless_forbidden(
        &mut self,
        action: &str,
        path: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, DockerError> {
        let by = Instant::now() + limit;
        match self.way.get(action, path, by)? {
            403 => {
                // A connection whose answer is not read to its end could not be used again.
                self.way.said(by);
                Ok(None)
            }
            status => self.way.body_of_200(status, action, by).map(Some),
        }
    }
}

/// The way to one engine, and how failures on it are told.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) http: Http,
}

impl Way {
    fn new(address: &Address, room: usize) -> Way {
        let http = Http::new(address, Closer::default(), room);
        Way { http }
    }

    /// Asks; the status of the answer.
    fn get(&mut self, action: &str, path: &str, by: Instant) -> Result<u16, DockerError> {
        self.get_first(action, &[path.to_owned()], by)
    }

    /// Asks for the first, and sends the others along.
    fn get_first(
        &mut self,
        action: &str,
        paths: &[String],
        by: Instant,
    ) -> Result<u16, DockerError> {
        let status = self.http.get(paths, by);
        status.map_err(|cause| self.failed(action, cause))
    }

    /// The body of a small answer that has to be as it should.
    fn body_of_200(
        &mut self,
        status: u16,
        action: &str,
        by: Instant,
    ) -> Result<Vec<u8>, DockerError> {
        if status != 200 {
            return Err(self.refused(action, status, by));
        }
        let mut body = Vec::new();
        self.read(&mut body, action, by, SMALL_CAP)?;
        Ok(body)
    }

    fn read(
        &mut self,
        body: &mut Vec<u8>,
        action: &str,
        by: Instant,
        cap: u64,
    ) -> Result<(), DockerError> {
        let read = Reading::of(&mut self.http, by, cap).all(body);
        read.map_err(|cause| self.failed(action, cause))
    }

    /// What the body of an error says.
    fn said(&mut self, by: Instant) -> Option<String> {
        let mut body = Vec::new();
        let read = Reading::of(&mut self.http, by, SMALL_CAP).all(&mut body);
        wire::message(read.ok().map(|()| &*body)?)
    }

    fn refused(&mut self, action: &str, status: u16, by: Instant) -> DockerError {
        let said = self.said(by);
        self.told(action, status, said)
    }

    fn told(&self, action: &str, status: u16, said: Option<String>) -> DockerError {
        let said = said.unwrap_or_else(|| "no reason given".to_owned());
        let cause = format!("status {status}: {said}");
        self.error(DockerErrorKind::Status(status), action, cause)
    }

    pub(super) fn bad_answer(&self, action: &str, cause: impl fmt::Display) -> DockerError {
        self.error(DockerErrorKind::BadAnswer, action, cause)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.http.closer().is_closed()
    }

    /// Says what a failure of the transport means.
    pub(super) fn failed(&self, action: &str, cause: io::Error) -> DockerError {
        let (kind, cause) = if self.is_closed() {
            let cause = "this agent closed the connection";
            (DockerErrorKind::Closed, cause.to_owned())
        } else {
            judge(&cause)
        };
        self.error(kind, action, cause)
    }

    pub(super) fn error(
        &self,
        kind: DockerErrorKind,
        action: &str,
        cause: impl fmt::Display,
    ) -> DockerError {
        let engine = match self.http.address() {
            Address::Unix(path) => format!("unix://{}", path.display()),
            tcp => format!("tcp://{}", authority(tcp)),
        };
        let text = format!("failed to {action} engine `{engine}`: {cause}");
        DockerError { kind, text }
    }
}

/// What a failure of the transport means, and what to do about it.
fn judge(cause: &io::Error) -> (DockerErrorKind, String) {
    use DockerErrorKind::{BadAnswer, Broken, Refused, Timeout};
    let told = plain(cause);
    match cause.kind() {
        _ if is_timeout(cause) => {
            let what = cause.get_ref().map(|what| what.to_string());
            let what = what.unwrap_or_else(|| "it did not answer in time".to_owned());
            (Timeout, what)
        }
        io::ErrorKind::PermissionDenied => {
            let remedy = "add the user to the group `docker` or run as root";
            (Refused, format!("{told}; {remedy}"))
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            (Refused, format!("{told}; is the engine running?"))
        }
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => (Refused, told),
        io::ErrorKind::UnexpectedEof => (Broken, "it closed the connection".to_owned()),
        io::ErrorKind::InvalidData => (BadAnswer, told),
        _ => (Broken, told),
    }
}

/// An IO error in the style of our own: lower case, and without the number that says the same again.
fn plain(cause: &io::Error) -> String {
    let text = cause.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn list_path(
    api_version: &str,
    all: bool,
    filters: &[(String, String)],
    only: Option<&ContainerId>,
) -> String {
    let mut map: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in filters {
        map.entry(name).or_default().push(value);
    }
    // Values of one name are alternatives: another id beside the user's own would let more in instead of less.
    if let Some(only) = only
        && !map.contains_key("id")
    {
        map.insert("id", vec![only.as_str()]);
    }
    let mut path = format!("/v{api_version}/containers/json?all={}", u8::from(all));
    if !map.is_empty() {
        let map = serde_json::json!(map).to_string();
        path.push_str("&filters=");
        path.push_str(&escaped(&map));
    }
    path
}

/// Percent-encodes all that means something in a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Docker's form of a time: `sec.nnnnnnnnn`.
fn stamp(ns: i64) -> String {
    let ns = ns.max(0);
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// The lower of the engine's version and ours; `None` where the engine's is none.
fn lower_version(theirs: &str) -> Option<String> {
    let numbers = |version: &str| -> Option<(u32, u32)> {
        let (major, minor) = version.trim().split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let lower = numbers(theirs)?.min(numbers(MAX_API)?);
    Some(format!("{}.{}", lower.0, lower.1))
}

#[cfg(test)]
mod tests {
    use super::super::fake::*;
    use super::*;
    use std::time::Instant;

    const SOON: Duration = Duration::from_millis(100);

    fn ping(version: &str) -> String {
        let date = "Date: Sun, 22 Nov 2026 13:03:04 GMT";
        answer(
            "200 OK",
            &format!("Api-Version: {version}\r\n{date}\r\n"),
            "OK",
        )
    }

    fn ok(body: &str) -> String {
        answer("200 OK", "", body)
    }

    fn kind<T: fmt::Debug>(result: Result<T, DockerError>) -> DockerErrorKind {
        result.expect_err("it fails").kind
    }

    #[test]
    fn an_engine_is_greeted_on_one_connection_in_its_own_version() {
        let info = r#"{"ID":"Q2","Name":"ubuntu","SystemTime":"2026-11-22T13:03:02.5+00:00"}"#;
        let version = r#"{"Version":"20.10.24","GitCommit":"5d6db84","GoVersion":"go1.19.8"}"#;
        let fake = Fake::answering(vec![
            ("/_ping", ping("1.41")),
            ("/v1.41/info", ok(info)),
            ("/v1.41/version", ok(version)),
        ]);
        let hello = Connection::new(&fake.address()).hello(INFO_LIMIT);
        let expected = Hello {
            api_version: "1.41".into(),
            engine_id: "Q2".into(),
            host_name: "ubuntu".into(),
            docker_version: "20.10.24;git-5d6db84;go1.19.8".into(),
            clock_ns: 1_795_352_582_500_000_000,
            ..Hello::default()
        };
        assert_eq!(hello, Ok(expected));
        fake.finish();
    }

    #[test]
    fn an_engine_that_has_been_there_is_not_asked_for_its_version_again() {
        let info = |id: &str| ok(&format!(r#"{{"ID":"{id}"}}"#));
        let version = r#"{"Version":"28.0.0"}"#;
        let fake = Fake::answering(vec![
            ("/_ping", ping("1.41")),
            ("/v1.41/info", info("Q2")),
            ("/_ping", ping("1.41")),
            ("/v1.41/info", info("other")),
            ("/v1.41/version", ok(version)),
        ]);
        let before = Hello {
            engine_id: "Q2".into(),
            docker_version: "20.10.24".into(),
            ..Hello::default()
        };
        let mut connection = Connection::new(&fake.address());
        let mut version = || {
            let hello = connection.hello_again(&before, INFO_LIMIT);
            hello.map(|hello| hello.docker_version)
        };
        assert_eq!(version().as_deref(), Ok("20.10.24"));
        assert_eq!(version().as_deref(), Ok("28.0.0"));
        fake.finish();
    }

    #[test]
    fn behind_a_proxy_that_keeps_things_to_itself_the_clock_is_that_of_the_ping() {
        let no = || answer("403 Forbidden", "", "<html>no</html>");
        let fake = Fake::answering(vec![
            ("/_ping", ping("9.99")),
            ("/v1.51/info", no()),
            ("/v1.51/version", no()),
        ]);
        let expected = Hello {
            api_version: MAX_API.into(),
            clock_ns: 1_795_352_584_000_000_000,
            ..Hello::default()
        };
        assert_eq!(
            Connection::new(&fake.address()).hello(INFO_LIMIT),
            Ok(expected)
        );
        fake.finish();
    }

    #[test]
    fn what_is_no_engine_is_told_from_one() {
        let moved = answer("301 Moved", "Location: /x\r\n", "");
        for (answer, expected) in [
            (ok("hello"), DockerErrorKind::BadAnswer),
            (
                "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
                DockerErrorKind::BadAnswer,
            ),
            (moved.clone(), DockerErrorKind::Status(301)),
            ("HTTP/1.1 200 OK\r\n".to_owned(), DockerErrorKind::Broken),
        ] {
            let fake = Fake::answering(vec![("/_ping", answer.clone())]);
            let result = Connection::new(&fake.address()).hello(INFO_LIMIT);
            assert_eq!(kind(result), expected, "{answer}");
            fake.finish();
        }
        for answer in [moved, answer("404 Not Found", "", "<html>nginx</html>")] {
            let fake = Fake::answering(vec![("/_ping", answer)]);
            let error = Connection::new(&fake.address()).hello(INFO_LIMIT);
            let text = error.unwrap_err().text;
            assert!(
                text.contains("something else than a Docker engine"),
                "{text}"
            );
            assert!(
                text.starts_with("failed to ping engine `unix:///"),
                "{text}"
            );
            fake.finish();
        }
    }

    #[test]
    fn the_lower_version_is_spoken() {
        for (theirs, spoken) in [
            ("1.41", Some("1.41")),
            ("1.9", Some("1.9")),
            ("1.51", Some("1.51")),
            ("1.60", Some(MAX_API)),
            ("2.0", Some(MAX_API)),
            ("", None),
            ("1", None),
            ("1.x", None),
        ] {
            assert_eq!(lower_version(theirs).as_deref(), spoken, "{theirs}");
        }
    }

    #[test]
    fn a_list_is_asked_for_with_the_filters_and_the_one_container() {
        let filters = [("label", "a=b&c"), ("name", "x"), ("label", "d")];
        let filters = filters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let only = ContainerId::from("abc");
        let path = list_path("1.41", true, &[], None);
        assert_eq!(path, "/v1.41/containers/json?all=1");
        let path = list_path("1.41", false, &filters, Some(&only));
        let map = r#"{"id":["abc"],"label":["a=b&c","d"],"name":["x"]}"#;
        let expected = format!("/v1.41/containers/json?all=0&filters={}", escaped(map));
        assert_eq!(path, expected);
        assert_eq!(
            escaped(r#"{"a":["=&ä~"]}"#),
            "%7B%22a%22%3A%5B%22%3D%26%C3%A4~%22%5D%7D"
        );
        let by_id = [("id".to_owned(), "def".to_owned())];
        assert!(!list_path("1.41", false, &by_id, Some(&only)).contains("abc"));
    }

    #[test]
    fn long_filters_are_sent() {
        let filters = [("label".to_owned(), "ä".repeat(5_000))];
        let only = ContainerId::from("a".repeat(64).as_str());
        let path = list_path("1.41", true, &filters, Some(&only));
        let path: &'static str = Box::leak(path.into_boxed_str());
        let fake = Fake::answering(vec![(path, ok("[]"))]);
        let mut client = Client::new(&fake.address());
        let rows = client.list("1.41", true, &filters, Some(&only), LIST_LIMIT);
        assert_eq!(rows, Ok(vec![]));
        fake.finish();
    }

    #[test]
    fn a_list_may_be_null_and_holds_no_other_than_the_one_asked_for() {
        let two = r#"[{"Id":"abc","State":"running"},{"Id":"abd","State":"exited"}]"#;
        let one = "/v1.41/containers/json?all=0&filters=%7B%22id%22%3A%5B%22abd%22%5D%7D";
        let fake = Fake::answering(vec![
            ("/v1.41/containers/json?all=1", ok("null\n")),
            ("/v1.41/containers/json?all=1", ok(two)),
            (one, ok(two)),
        ]);
        let mut client = Client::new(&fake.address());
        assert_eq!(client.list("1.41", true, &[], None, LIST_LIMIT), Ok(vec![]));
        let rows = client.list("1.41", true, &[], None, LIST_LIMIT);
        assert_eq!(rows.map(|rows| rows.len()), Ok(2));
        let id = ContainerId::from("abd");
        let row = Row {
            id: id.clone(),
            running: false,
            member: true,
        };
        assert_eq!(
            client.list("1.41", false, &[], Some(&id), LIST_LIMIT),
            Ok(vec![row])
        );
        fake.finish();
    }

    #[test]
    fn an_error_says_what_the_engine_said() {
        let said = r#"{"message":"client version 1.99 is too new"}"#;
        let bad = answer("400 Bad Request", "", said);
        let fake = Fake::answering(vec![("/v1.99/containers/json?all=0", bad)]);
        let result = Client::new(&fake.address()).list("1.99", false, &[], None, LIST_LIMIT);
        let Address::Unix(path) = fake.address() else {
            unreachable!("it is a socket")
        };
        let text = format!(
            "failed to list the containers of engine `unix://{}`: status 400: client version 1.99 is too new",
            path.display()
        );
        let kind = DockerErrorKind::Status(400);
        assert_eq!(result, Err(DockerError { kind, text }));
        fake.finish();
    }

    #[test]
    fn a_container_is_gone_only_by_the_engines_own_word() {
        let path = "/v1.41/containers/abc/json";
        let no = |said: &str| answer("404 Not Found", "", said);
        let docker = no(r#"{"message":"No such container: abc"}"#);
        let podman = no(
            r#"{"cause":"no such container","message":"no container with name or ID \"abc\" found: no such container","response":404}"#,
        );
        let fake = Fake::answering(vec![
            (path, ok("{}")),
            (path, docker),
            (path, podman),
            (path, no(r#"{"message":"page not found"}"#)),
            (path, no("<html></html>")),
            (path, answer("500 Internal Server Error", "", "no")),
        ]);
        let mut client = Client::new(&fake.address());
        let mut inspect = || client.inspect("1.41", &"abc".into(), PATIENCE);
        assert_eq!(inspect(), Ok(Some(b"{}".to_vec())));
        assert_eq!(inspect(), Ok(None));
        assert_eq!(inspect(), Ok(None));
        assert_eq!(kind(inspect()), DockerErrorKind::Status(404));
        assert_eq!(kind(inspect()), DockerErrorKind::Status(404));
        assert_eq!(kind(inspect()), DockerErrorKind::Status(500));
        fake.finish();
    }

    #[test]
    fn an_answer_that_comes_too_late_is_never_taken_for_the_next() {
        let fake = Fake::new(|listener| {
            let mut slow = accept(listener);
            let request = first_line(&mut slow);
            assert_eq!(request, "GET /v1.41/containers/slow/json HTTP/1.1");
            let mut next = accept(listener);
            send(&mut slow, ok("slow").as_bytes());
            let request = first_line(&mut next);
            assert_eq!(request, "GET /v1.41/containers/next/json HTTP/1.1");
            send(&mut next, ok("next").as_bytes());
        });
        let mut client = Client::new(&fake.address());
        let start = Instant::now();
        let slow = client.inspect("1.41", &"slow".into(), SOON);
        assert_eq!(kind(slow), DockerErrorKind::Timeout);
        assert!(start.elapsed() >= SOON, "{:?}", start.elapsed());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        let next = client.inspect("1.41", &"next".into(), PATIENCE);
        assert_eq!(next, Ok(Some(b"next".to_vec())));
        fake.finish();
    }

    #[test]
    fn half_an_answer_is_none() {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"Id\"".to_owned();
        let fake = Fake::answering(vec![("/v1.41/containers/abc/json", half)]);
        let result = Client::new(&fake.address()).inspect("1.41", &"abc".into(), PATIENCE);
        assert_eq!(kind(result), DockerErrorKind::Broken);
        fake.finish();
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let fake = Fake::new(|listener| {
            let mut peer = accept(listener);
            first_line(&mut peer);
            send(&mut peer, b"HTTP/1.1 200 OK\r\n\r\n");
            let block = [b' '; 1 << 16];
            while std::io::Write::write_all(&mut peer, &block).is_ok() {}
        });
        let result = Client::new(&fake.address()).inspect("1.41", &"abc".into(), PATIENCE);
        assert_eq!(kind(result), DockerErrorKind::BadAnswer);
        fake.finish();
    }

    #[test]
    fn closing_frees_a_call_at_once_and_for_good() {
        let (asked, was_asked) = std::sync::mpsc::channel();
        let fake = Fake::new(move |listener| {
            let mut peer = accept(listener);
            first_line(&mut peer);
            asked.send(()).expect("the test waits");
            wait_for_end(&mut peer);
        });
        let mut client = Client::new(&fake.address());
        let closer = client.closer();
        let call = std::thread::spawn(move || {
            let result = client.inspect("1.41", &"abc".into(), 6 * PATIENCE);
            (result, client)
        });
        was_asked.recv_timeout(PATIENCE).expect("it asks");
        let start = Instant::now();
        closer.close();
        let (result, mut client) = call.join().expect("it does not panic");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(kind(result), DockerErrorKind::Closed);
        let after = client.list("1.41", true, &[], None, LIST_LIMIT);
        assert_eq!(kind(after), DockerErrorKind::Closed);
        fake.finish();
    }

    #[test]
    fn what_cannot_be_reached_is_told_with_the_remedy() {
        let address = Address::Unix("/nonexistent/docker.sock".into());
        let error = Connection::new(&address).hello(INFO_LIMIT).unwrap_err();
        assert_eq!(error.kind, DockerErrorKind::Refused);
        assert_eq!(
            error.text,
            "failed to ping engine `unix:///nonexistent/docker.sock`: no such file or directory; is the engine running?"
        );
        let denied = judge(&io::Error::from_raw_os_error(13));
        let remedy = "permission denied; add the user to the group `docker` or run as root";
        assert_eq!(denied, (DockerErrorKind::Refused, remedy.to_owned()));
    }

    #[test]
    fn tcp_is_asked_the_same_under_its_own_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let script = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("somebody connects");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && io::Read::read(&mut peer, &mut byte).is_ok() {
                head.push(byte[0]);
            }
            io::Write::write_all(&mut peer, ok("[]").as_bytes()).expect("it reads");
            String::from_utf8(head).expect("a head is text")
        });
        let address = |host: &str| Address::Tcp {
            host: host.to_owned(),
            port,
        };
        let rows = Client::new(&address("127.0.0.1")).list("1.41", true, &[], None, LIST_LIMIT);
        assert_eq!(rows, Ok(vec![]));
        let head = script.join().expect("the script went as it should");
        let host = format!("host: 127.0.0.1:{port}\r\n");
        assert!(head.to_lowercase().contains(&host), "{head}");
        assert_eq!(authority(&address("::1")), format!("[::1]:{port}"));
    }

    #[test]
    fn a_time_is_asked_for_in_dockers_form() {
        assert_eq!(stamp(1_795_352_582_000_000_007), "1795352582.000000007");
        assert_eq!(stamp(-1), "0.000000000");
    }
}
