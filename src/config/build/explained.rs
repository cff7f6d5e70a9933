//! Whose events the verb `explain` is about.

use super::super::nearest::nearest;
use super::{Builder, Given, url};
use crate::args::Verb;
use crate::config::{Config, Mistake, Origin, cut};
use crate::model::Engine;

/// Whose events the verb `explain` is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The engine, by the name that entries know it by.
    pub engine: Engine,
    /// Its events are followed, not read from the standard input.
    pub live: bool,
}

impl Builder<'_> {
    /// Whose events `explain` tells of: the one that is named or stands at the URL, else the first.
    pub(super) fn explained(&mut self, config: Option<&Config>) -> Option<Explained> {
        let options = &self.typed.options;
        if self.typed.verb != Verb::Explain {
            if options.engine.is_some() && self.typed.verb != Verb::Fire {
                let mistake = Mistake::new("it is for the verbs `explain` and `fire`", "");
                self.wrong(Origin::Option("engine"), mistake);
            }
            return None;
        }
        let engines = &config?.engines;
        let given = self.given("engine", &options.engine);
        let followed = match &given {
            Some(given) if given.text.contains("://") => Some(self.parsed(given, url::engine)?),
            _ => None,
        };
        let name = match (&followed, &given) {
            (None, Some(given)) => Some(given),
            _ => None,
        };
        let id = self.given("id", &options.id);
        let is_at = |engine: &&Engine| Some(&engine.address) == followed.as_ref();
        let mut engine = match name.or(id.as_ref()) {
            Some(named) => self.engine_named(engines, named, ", or a URL")?,
            None => engines.iter().find(is_at).or(engines.first())?.clone(),
        };
        if let (Some(address), Some(given)) = (followed, &given) {
            engine.address = address;
            engine.url = url::masked(&given.text).into();
        }
        Some(Explained {
            engine,
            live: given.is_some(),
        })
    }

    /// `or` is what may be given instead of a name.
    pub(super) fn engine_named(
        &mut self,
        engines: &[Engine],
        given: &Given,
        or: &str,
    ) -> Option<Engine> {
        let found = engines.iter().find(|engine| *engine.name == given.text);
        if found.is_none() {
            let names: Vec<&str> = engines.iter().map(|engine| &*engine.name).collect();
            let problem = format!("no engine is named `{}`", cut(&given.text));
            let expected = format!("one of {}{or}", names.join(", "));
            let meant = nearest(&given.text, names);
            let mistake = Mistake::new(problem, expected).near(meant);
            self.wrong(given.origin.clone(), mistake);
        }
        found.cloned()
    }
}
