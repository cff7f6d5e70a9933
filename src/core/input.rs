//! What a command finds on its standard input: one JSON object and a newline.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{Event, Fields, Scope};

/// So much stands around the document as a rule, in bytes.
const AROUND: usize = 2048;

/// All that the object tells, in its order.
#[derive(serde::Serialize, Debug)]
pub struct Input<'a> {
    /// The event, as Docker sent it.
    #[serde(skip)]
    pub event: &'a Event,
    /// Where it happened.
    #[serde(skip)]
    pub engine: Engine<'a>,
    /// The JSON of the container's document.
    #[serde(skip)]
    pub container: Option<&'a str>,
    /// There is no such container any more; the document is its last one.
    #[serde(skip_serializing_if = "is_false")]
    pub container_gone: bool,
    /// The event was found by a resync or told only after an outage.
    pub inferred: bool,
    /// Which of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// The run's id.
    pub run: &'a str,
    /// The entry's name.
    pub entry: &'a str,
    /// How many events the run stands for.
    pub count: u64,
}

/// An engine, for a command.
#[derive(serde::Serialize, Debug)]
pub struct Engine<'a> {
    /// Its name in `cluster`, else the agent's `--id`.
    pub name: &'a str,
    /// As the user wrote it.
    pub url: &'a str,
    /// Docker's own id of it; empty as long as it has not said it.
    pub id: &'a str,
}

/// What stands before the container.
#[derive(serde::Serialize)]
struct Head<'a> {
    #[serde(serialize_with = "event")]
    event: &'a Event,
    engine: &'a Engine<'a>,
}

impl Input<'_> {
    /// The object, and its newline. The document is larger than all else, and JSON as it is: it is put between the two other parts unread.
    pub fn bytes(&self) -> Vec<u8> {
        let Input { event, engine, .. } = self;
        let container = self.container.unwrap_or("null").as_bytes();
        let mut bytes = Vec::with_capacity(container.len() + AROUND);
        // Nothing in here refuses to be written.
        let _ = serde_json::to_writer(&mut bytes, &Head { event, engine });
        bytes.pop(); // its }
        bytes.extend_from_slice(b",\"container\":");
        bytes.extend_from_slice(container);
        let tail = bytes.len();
        let _ = serde_json::to_writer(&mut bytes, self);
        bytes[tail] = b','; // was its {
        bytes.push(b'\n');
        bytes
    }
}

/// Why an inferred event is one.
pub fn reason(event: &Event) -> &'static str {
    match event.scope {
        Scope::MadeUp => "no event told it: a resync found it",
        Scope::Local | Scope::Swarm => "the engine told it only after an outage",
    }
}

/// An event in Docker's own form.
pub fn event<S: Serializer>(event: &&Event, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("Type", &*event.kind)?;
    map.serialize_entry("Action", &*event.action)?;
    map.serialize_entry("Actor", &Actor(&event.id, &event.attributes))?;
    map.serialize_entry("scope", event.scope.word())?;
    map.serialize_entry("time", &(event.time_ns / 1_000_000_000))?;
    map.serialize_entry("timeNano", &event.time_ns)?;
    map.end()
}

struct Actor<'a>(&'a str, &'a Fields);

impl Serialize for Actor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("ID", self.0)?;
        map.serialize_entry("Attributes", &Attributes(self.1))?;
        map.end()
    }
}

struct Attributes<'a>(&'a Fields);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn die() -> Event {
        Event {
            kind: "container".into(),
            action: "die".into(),
            id: "c1".into(),
            attributes: [
                ("exitCode", "137"),
                ("name", "$(touch pwned)"),
                ("text", "'; rm -rf ~\n\"\\\u{0}\u{2028}ä"),
            ]
            .into_iter()
            .collect(),
            time_ns: 1_795_352_582_893_254_447,
            scope: Scope::Local,
        }
    }

    fn input<'a>(event: &'a Event, container: Option<&'a str>) -> Input<'a> {
        Input {
            event,
            engine: Engine {
                name: "foo",
                url: "tcp://10.0.0.7:2375",
                id: "Q2",
            },
            container,
            container_gone: false,
            inferred: false,
            reason: None,
            attempt: 1,
            run: "1a2b3c4d-7",
            entry: "greet",
            count: 1,
        }
    }

    fn text(input: &Input) -> String {
        let bytes = input.bytes();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }

    #[test]
    fn it_is_one_line_of_json_in_which_all_is_data() {
        let json = r#"{"Id":"c1","Config":{"Labels":{"a":"$(x)\n"}}}"#;
        let expected = r#"{"event":{"Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"exitCode":"137","name":"$(touch pwned)","text":"'; rm -rf ~\n\"\\\u0000"#
            .to_owned()
            + "\u{2028}"
            + r#"ä"}},"scope":"local","time":1795352582,"timeNano":1795352582893254447},"engine":{"name":"foo","url":"tcp://10.0.0.7:2375","id":"Q2"},"container":"#
            + json
            + r#","inferred":false,"attempt":1,"run":"1a2b3c4d-7","entry":"greet","count":1}"#
            + "\n";
        assert_eq!(text(&input(&die(), Some(json))), expected);
    }

    #[test]
    fn what_is_gone_inferred_or_unknown_is_said() {
        let event = Event {
            scope: Scope::MadeUp,
            ..die()
        };
        let mut told = input(&event, Some("{}"));
        told.container_gone = true;
        told.inferred = true;
        told.reason = Some(reason(&event));
        told.attempt = 2;
        let expected = r#""container":{},"container_gone":true,"inferred":true,"reason":"no event told it: a resync found it","attempt":2,"run":"1a2b3c4d-7","entry":"greet","count":1}"#;
        assert!(text(&told).contains(expected), "{}", text(&told));
        assert!(text(&told).contains(r#""scope":"local""#));
        let text = text(&input(&event, None));
        assert!(text.contains(r#""container":null,"inferred":"#), "{text}");
    }
}
