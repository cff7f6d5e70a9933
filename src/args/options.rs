//! The table of options: it serves the command line, the help, the defaults and the documents.

use crate::model::DEFAULT_SECRETS;

/// An option, as help and documents tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionSpec {
    /// The name without dashes, `update-interval`.
    pub name: &'static str,
    /// What the value is, `DURATION`; nothing for an option that is just there or not.
    pub value: &'static str,
    /// The value when none is given; nothing where there is none or where it depends on the machine.
    pub default: &'static str,
    /// What it is for, in lines of help.
    pub about: &'static str,
}

/// All options, in the order of the help.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "id",
        value: "NAME",
        default: "",
        about: "Id of this host in the cache, where no other host may have it.",
    },
    OptionSpec {
        name: "docker",
        value: "URL",
        default: "unix:///var/run/docker.sock",
        about: "The Docker engine to watch: unix:///PATH, tcp://HOST:PORT or http://HOST:PORT.",
    },
    OptionSpec {
        name: "cache",
        value: "URL",
        default: "redis://localhost:6379",
        about: "The Redis that gets the data: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE],\n\
                unix:///PATH[?db=DATABASE], or `none` to switch the cache off.",
    },
    OptionSpec {
        name: "update-interval",
        value: "DURATION",
        default: "2m",
        about: "Time between two full comparisons with the engine (the second may come sooner); changes show at once anyway.",
    },
    OptionSpec {
        name: "prefix",
        value: "WORD",
        default: "docker",
        about: "First word of every key in the cache.",
    },
    OptionSpec {
        name: "all",
        value: "",
        default: "false",
        about: "Report stopped containers too.",
    },
    OptionSpec {
        name: "filter",
        value: "KEY=VALUE",
        default: "",
        about: "Report only the containers that this filter of `docker ps` lets through,\n\
                label=web for example. May stand several times (in the variable: with commas).",
    },
    OptionSpec {
        name: "redact",
        value: "PATTERNS",
        default: DEFAULT_SECRETS,
        about: "Mask the values of the environment variables and labels that have such names;\n\
                `none` masks nothing.",
    },
    OptionSpec {
        name: "forget-after",
        value: "DURATION",
        default: "1h",
        about: "Keep the containers of an engine that does not answer for so long.",
    },
    OptionSpec {
        name: "replay-max-age",
        value: "DURATION",
        default: "5m",
        about: "After a restart, take up events that are not older than this.",
    },
    OptionSpec {
        name: "stream-max-age",
        value: "DURATION",
        default: "10m",
        about: "Renew an engine's event stream when it is half as old to as old as this; each\n\
                renewal checks that the engine told everything.",
    },
    OptionSpec {
        name: "stream-maxlen",
        value: "NUMBER",
        default: "10000",
        about: "Keep about so many entries in each of the streams of events and of runs.",
    },
    OptionSpec {
        name: "workers",
        value: "NUMBER",
        default: "64",
        about: "Run so many commands at once at most.",
    },
    OptionSpec {
        name: "cache-password-file",
        value: "FILE",
        default: "",
        about: "Read the password of the cache from this file; without it, from the file\n\
                cache-password in systemd's $CREDENTIALS_DIRECTORY, if that is there.",
    },
    OptionSpec {
        name: "selfcheck",
        value: "",
        default: "false",
        about: "After each full comparison also read every document back from the cache, and say\n\
                what differed from what the events had told, and why. For tests and for doubts.",
    },
    OptionSpec {
        name: "engine",
        value: "ENGINE",
        default: "",
        about: "With `explain`: follow the events of this engine, a name of the cluster or a URL,\n\
                instead of reading them from the standard input. With `fire`: the engine, by its\n\
                name, that has the container; else the first of the cluster that has it.",
    },
    OptionSpec {
        name: "entry",
        value: "NAME",
        default: "",
        about: "With `fire`: the entry to run, by its name or as #3, the third of the file.",
    },
    OptionSpec {
        name: "container",
        value: "CONTAINER",
        default: "",
        about: "With `fire`: the container to run it for, by its name or the beginning of its id.",
    },
    OptionSpec {
        name: "type",
        value: "WORD",
        default: "",
        about: "With `fire`: the event to make up, `die` for example; else the first plain word of\n\
                the entry's `type`, or `start` where it has none.",
    },
    OptionSpec {
        name: "log-format",
        value: "FORMAT",
        default: "text",
        about: "`text`, or `json` for one JSON object a line.",
    },
];

impl OptionSpec {
    /// The name as Go spells it, `updateInterval`.
    pub fn camel_case(&self) -> String {
        let mut name = String::new();
        for (index, word) in self.name.split('-').enumerate() {
            let (first, rest) = word.split_at(1);
            match index {
                0 => name.push_str(first),
                _ => name.push_str(&first.to_ascii_uppercase()),
            }
            name.push_str(rest);
        }
        name
    }

    /// The variable of the environment that gives the value when the option is not typed.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// May it stand several times? Of the others the last one counts.
    pub fn may_repeat(&self) -> bool {
        self.name == "filter"
    }
}

/// The variable of an option, `DOCKER_CACHE_UPDATE_INTERVAL`.
pub(crate) fn variable(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace('-', "_");
    format!("DOCKER_CACHE_{name}")
}

/// The default of an option in the table.
pub(crate) fn default_of(name: &str) -> &'static str {
    let spec = OPTIONS.iter().find(|spec| spec.name == name);
    spec.map_or("", |spec| spec.default)
}
