//! One connection: requests in, answers out, by moby's rules and the behaviours that are switched on.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::containers::{Container, Status};
use super::events::{Item, Next};
use super::http::{Answer, Conn, Request, http_date, reason, rfc3339};
use super::{Behaviour, Route, Shared, State};

/// Serves a connection on a thread of its own.
pub fn spawn(shared: &Arc<Shared>, conn: Conn) {
    let Ok(registered) = conn.try_clone() else {
        return;
    };
    let (number, downs) = {
        let mut state = shared.state();
        state.next_conn += 1;
        (state.next_conn, state.downs)
    };
    shared.conns().insert(number, registered);
    let shared = shared.clone();
    std::thread::spawn(move || {
        let mut connection = Connection {
            shared,
            conn,
            downs,
        };
        // A client that hangs up in the middle is none of our business.
        let _ = connection.serve();
        connection.conn.shutdown();
        connection.shared.conns().remove(&number);
    });
}

struct Connection {
    shared: Arc<Shared>,
    conn: Conn,
    downs: u64,
}

impl Connection {
    fn serve(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(self.conn.try_clone()?);
        while let Some(request) = Request::read(&mut reader)? {
            let route = route(&request);
            let behaviour = self.count_and_wait(&route)?;
            let answer = match (&route, behaviour) {
                (_, Some(Behaviour::Status(status, message))) => Answer::error(status, &message),
                (Some(Route::Events), late) if self.refusal(&request).is_none() => {
                    return self.stream(&request, late);
                }
                (_, Some(Behaviour::Another(id))) => {
                    self.answer(&request, Some(Route::InspectOf(id)))
                }
                (_, late) => {
                    let answer = self.answer(&request, route);
                    if let Some(Behaviour::Late(delay)) = late {
                        self.pause(delay)?;
                    }
                    answer
                }
            };
            self.send(&request, &answer)?;
            if !request.keep_alive {
                break;
            }
        }
        Ok(())
    }

    /// Counts the request, and waits as long as its route hangs.
    fn count_and_wait(&self, route: &Option<Route>) -> io::Result<Option<Behaviour>> {
        let mut names = vec![Route::Every];
        match route {
            Some(Route::InspectOf(_)) => names.push(Route::Inspect),
            Some(Route::ListOf(_)) => names.push(Route::List),
            _ => {}
        }
        names.extend(route.clone());
        let mut state = self.shared.state();
        for name in &names {
            *state.requests.entry(name.clone()).or_default() += 1;
        }
        loop {
            let found = names
                .iter()
                .rev()
                .find_map(|name| state.behaviours.get(name));
            match found.cloned() {
                Some(Behaviour::Hang) => state = self.wait(state, None)?,
                other => return Ok(other),
            }
        }
    }

    /// Waits so long, unless the engine goes down meanwhile.
    fn pause(&self, delay: Duration) -> io::Result<()> {
        let deadline = Instant::now() + delay;
        let mut state = self.shared.state();
        while Instant::now() < deadline {
            state = self.wait(state, Some(deadline))?;
        }
        Ok(())
    }

    fn wait<'a>(
        &self,
        state: std::sync::MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> io::Result<std::sync::MutexGuard<'a, State>> {
        let long = Instant::now() + Duration::from_secs(3600);
        let left = deadline
            .unwrap_or(long)
            .saturating_duration_since(Instant::now());
        let waited = self.shared.changed.wait_timeout(state, left);
        let state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        if state.downs == self.downs {
            return Ok(state);
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Docker's answer to a version that it does not speak.
    fn refusal(&self, request: &Request) -> Option<Answer> {
        let [oldest, newest] = self.shared.state().api;
        let version = request.version?;
        if version > newest {
            let text = format!(
                "client version {}.{} is too new. Maximum supported API version is {}.{}",
                version.0, version.1, newest.0, newest.1
            );
            return Some(Answer::error(400, &text));
        }
        if version < oldest {
            let text = format!(
                "client version {}.{} is too old. Minimum supported API version is {}.{}, please upgrade your client to a newer version",
                version.0, version.1, oldest.0, oldest.1
            );
            // To clients before 1.24 Docker speaks plain text.
            return Some(if version < (1, 24) {
                Answer::text(400, &text)
            } else {
                Answer::error(400, &text)
            });
        }
        None
    }

    fn answer(&self, request: &Request, route: Option<Route>) -> Answer {
        if let Some(refusal) = self.refusal(request) {
            return refusal;
        }
        let state = self.shared.state();
        match route {
            Some(Route::Ping) => Answer::text(200, "OK"),
            Some(Route::Info) => Answer::json(info(&state).to_string()),
            Some(Route::Version) => Answer::json(version(&state).to_string()),
            Some(Route::List | Route::ListOf(_)) => match list(&state, &request.query) {
                Ok(rows) => Answer::json(Value::Array(rows).to_string()),
                Err(message) => Answer::error(400, &message),
            },
            Some(Route::InspectOf(wanted)) => match find(&state, &wanted) {
                Some(container) => Answer::json(container.inspect(state.now_ns())),
                None => Answer::error(404, &format!("No such container: {wanted}")),
            },
            _ => Answer::error(404, "page not found"),
        }
    }

    fn send(&mut self, request: &Request, answer: &Answer) -> io::Result<()> {
        let mut bytes = self
            .headers(answer.status, answer.content_type)
            .into_bytes();
        bytes.extend(format!("Content-Length: {}\r\n\r\n", answer.body.len()).into_bytes());
        if request.method != "HEAD" {
            bytes.extend(&answer.body);
        }
        self.write(&bytes)
    }

    fn headers(&self, status: u16, content_type: &str) -> String {
        let state = self.shared.state();
        let [_, newest] = state.api;
        format!(
            "HTTP/1.1 {status} {}\r\nApi-Version: {}.{}\r\nContent-Type: {content_type}\r\nDocker-Experimental: false\r\n\
             Ostype: linux\r\nServer: Docker/{} (linux)\r\nDate: {}\r\n",
            reason(status),
            newest.0,
            newest.1,
            state.version,
            http_date(state.now_ns())
        )
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.shared.state().slice {
            return self.conn.write_all(bytes);
        }
        bytes
            .iter()
            .try_for_each(|byte| self.conn.write_all(&[*byte]))
    }

    /// `/events`: headers first, then the subscription, then the past, then the present.
    fn stream(&mut self, request: &Request, late: Option<Behaviour>) -> io::Result<()> {
        let times = (time(request, "since"), time(request, "until"));
        let (Ok(since_ns), Ok(until_ns)) = times else {
            return self.send(
                request,
                &Answer::error(400, "invalid time in since or until"),
            );
        };
        let now_ns = self.shared.state().now_ns();
        let only_past = until_ns.is_some_and(|until| until < now_ns);
        if until_ns.is_some_and(|until| until < since_ns.unwrap_or(0)) {
            let text = "`since` time cannot be after `until` time";
            return self.send(request, &Answer::error(400, text));
        }
        let end = until_ns
            .map(|until| Instant::now() + Duration::from_nanos((until - now_ns).max(0) as u64));
        let filters = match filters(&request.query) {
            Ok(filters) => filters,
            Err(message) => return self.send(request, &Answer::error(400, &message)),
        };
        let headers = self.headers(200, "application/json") + "Transfer-Encoding: chunked\r\n\r\n";
        self.write(headers.as_bytes())?;
        if let Some(Behaviour::Late(delay)) = late {
            self.pause(delay)?;
        }
        let (past, subscriber) = self.shared.broker.subscribe(since_ns, until_ns);
        // The client says nothing more; reading ends when it hangs up.
        if let Ok(mut ear) = self.conn.try_clone() {
            let (shared, subscriber) = (self.shared.clone(), subscriber.clone());
            std::thread::spawn(move || {
                let mut byte = [0];
                while matches!(ear.read(&mut byte), Ok(1..)) {}
                shared.broker.unsubscribe(&subscriber);
            });
        }
        let mut told = Told::default();
        let mut result = past
            .iter()
            .try_for_each(|item| self.tell(item, &filters, &mut told));
        while result.is_ok() && !only_past {
            match subscriber.next(end) {
                Next::Item(item) => result = self.tell(&item, &filters, &mut told),
                Next::Until => break,
                Next::Closed => result = Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        self.shared.broker.unsubscribe(&subscriber);
        result?;
        self.write(b"0\r\n\r\n")
    }

    /// One chunk an event, as moby writes them.
    fn tell(&mut self, item: &Item, filters: &Filters, told: &mut Told) -> io::Result<()> {
        let line = match item {
            Item::Raw(bytes) => bytes.clone(),
            Item::Event(event) => {
                let passes = filters.iter().all(|(key, values)| {
                    let has = |text: &str| values.iter().any(|value| value == text);
                    match key.as_str() {
                        "type" => has(&event.kind),
                        "event" => {
                            has(&event.action) || has(event.action.split(':').next().unwrap_or(""))
                        }
                        "container" => {
                            event.kind == "container"
                                && values.iter().any(|value| event.id.starts_with(value))
                        }
                        // A filter that Docker does not know matches everything.
                        _ => true,
                    }
                });
                if !passes {
                    return Ok(());
                }
                let mut line = event.line(self.shared.state().schema).into_bytes();
                line.push(b'\n');
                line
            }
        };
        let mut chunk = format!("{:x}\r\n", line.len()).into_bytes();
        chunk.extend(line);
        chunk.extend(b"\r\n");
        let cut = {
            let mut state = self.shared.state();
            let due = |cut: &usize| *cut <= told.bytes + chunk.len();
            let cut = state.cuts.front().copied().filter(due);
            if cut.is_some() {
                state.cuts.pop_front();
            }
            cut
        };
        if let Some(cut) = cut {
            chunk.truncate(cut.saturating_sub(told.bytes));
            self.write(&chunk)?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        told.bytes += chunk.len();
        self.write(&chunk)
    }
}

/// What a stream has sent after its headers.
#[derive(Default)]
struct Told {
    bytes: usize,
}

type Filters = BTreeMap<String, Vec<String>>;

fn route(request: &Request) -> Option<Route> {
    let path = request.path.as_str();
    Some(match path {
        "/_ping" => Route::Ping,
        "/info" => Route::Info,
        "/version" => Route::Version,
        "/events" => Route::Events,
        "/containers/json" => {
            let ids = filters(&request.query).unwrap_or_default().remove("id");
            match ids.as_deref() {
                Some([id]) => Route::ListOf(id.clone()),
                _ => Route::List,
            }
        }
        _ => {
            let id = path.strip_prefix("/containers/")?.strip_suffix("/json")?;
            Route::InspectOf(id.into())
        }
    })
}

/// By id, the beginning of one, or name; with and without a slash.
fn find<'a>(state: &'a State, wanted: &str) -> Option<&'a Container> {
    if let Some(container) = state.containers.get(wanted) {
        return Some(container);
    }
    let name = wanted.trim_start_matches('/');
    let mut all = state.containers.values();
    all.clone()
        .find(|one| one.spec.name == name)
        .or_else(|| all.find(|one| !name.is_empty() && one.id.starts_with(name)))
}

fn list(state: &State, query: &BTreeMap<String, String>) -> Result<Vec<Value>, String> {
    let filters = filters(query)?;
    let asked = query.get("all").map(String::as_str);
    let all = matches!(asked, Some("1" | "true" | "True")) || filters.contains_key("status");
    let mut rows: Vec<&Container> = Vec::new();
    for container in state.stale.as_ref().unwrap_or(&state.containers).values() {
        if container.passes(&filters)? && (all || container.status.is_running()) {
            rows.push(container);
        }
    }
    Ok(rows.into_iter().map(Container::row).collect())
}

/// Docker takes both `{"label":["a"]}` and `{"label":{"a":true}}`.
fn filters(query: &BTreeMap<String, String>) -> Result<Filters, String> {
    let text = query.get("filters").map_or("", String::as_str);
    if text.is_empty() {
        return Ok(Filters::new());
    }
    let read = |value: &Value| -> Option<Vec<String>> {
        match value {
            Value::Array(list) => list.iter().map(|one| Some(one.as_str()?.into())).collect(),
            Value::Object(map) => Some(map.keys().cloned().collect()),
            _ => None,
        }
    };
    let invalid = || "invalid filter".to_owned();
    let parsed: Value = serde_json::from_str(text).map_err(|_| invalid())?;
    let object = parsed.as_object().ok_or_else(invalid)?;
    object
        .iter()
        .map(|(key, value)| Ok((key.clone(), read(value).ok_or_else(invalid)?)))
        .collect()
}

/// `sec`, `sec.nnnnnnnnn`; nothing when it is not given.
fn time(request: &Request, name: &str) -> Result<Option<i64>, ()> {
    let Some(text) = request.query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| ())?;
    let nanos: i64 = format!("{fraction:0<9.9}").parse().map_err(|_| ())?;
    Ok(Some(
        seconds.saturating_mul(1_000_000_000).saturating_add(nanos),
    ))
}

fn info(state: &State) -> Value {
    let count = |status| {
        let all = state.containers.values();
        all.filter(|one| one.status == status).count()
    };
    json!({
        "ID": state.engine_id,
        "Containers": state.containers.len(),
        // As moby counts: a paused container does not run.
        "ContainersRunning": count(Status::Running),
        "ContainersPaused": count(Status::Paused),
        "ContainersStopped": count(Status::Exited) + count(Status::Created),
        "Images": 1,
        "Driver": "overlay2",
        "SystemTime": rfc3339(state.now_ns()),
        "KernelVersion": "6.1.0-18-amd64",
        "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
        "OSType": "linux",
        "Architecture": "x86_64",
        "NCPU": 4,
        "MemTotal": 8_589_934_592_u64,
        "DockerRootDir": "/var/lib/docker",
        "Name": state.name,
        "Labels": [],
        "ServerVersion": state.version,
        "LiveRestoreEnabled": true,
        "Warnings": null,
    })
}

fn version(state: &State) -> Value {
    let [oldest, newest] = state.api;
    json!({
        "Platform": { "Name": "" },
        "Version": state.version,
        "ApiVersion": format!("{}.{}", newest.0, newest.1),
        "MinAPIVersion": format!("{}.{}", oldest.0, oldest.1),
        "GitCommit": "5d6db84",
        "GoVersion": "go1.19.8",
        "Os": "linux",
        "Arch": "amd64",
        "KernelVersion": "6.1.0-18-amd64",
        "BuildTime": "2026-05-07T21:09:36.000000000+00:00",
    })
}
