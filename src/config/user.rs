//! Somebody to run commands as, from `/etc/passwd`.

use std::path::PathBuf;

use super::Mistake;
use crate::model::User;

/// Where users are looked up; no name service is asked.
pub const FILE: &str = "/etc/passwd";

/// What is expected of a user.
pub const EXPECTED: &str = "a name or uid of /etc/passwd, or `uid:gid`";

/// A line of the file.
struct Line<'p> {
    name: &'p str,
    uid: u32,
    gid: u32,
    home: &'p str,
}

/// Reads a user: a name or a uid that stands in the file, or `uid:gid`, which need not.
pub fn user(text: &str, passwd: &str) -> Result<User, Mistake> {
    let lines = || passwd.lines().filter_map(line);
    let shown = super::cut(text);
    let found = match text.split_once(':') {
        Some((uid, gid)) => {
            let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
                return Err(Mistake::new(format!("`{shown}` is no user"), EXPECTED));
            };
            let known = lines().find(|line| line.uid == uid);
            let home = known.map_or("/", |line| line.home);
            Some((uid, gid, home))
        }
        None => {
            let number = id(text);
            let mut lines = lines();
            lines
                .find(|line| number.map_or(line.name == text, |uid| line.uid == uid))
                .map(|line| (line.uid, line.gid, line.home))
        }
    };
    let Some((uid, gid, home)) = found else {
        let problem = format!("there is no user `{shown}` in {FILE}");
        let names = lines().map(|line| line.name);
        return Err(Mistake::new(problem, EXPECTED).near(super::nearest(text, names)));
    };
    Ok(User {
        name: text.to_owned(),
        uid,
        gid,
        home: PathBuf::from(if home.is_empty() { "/" } else { home }),
    })
}

fn line(text: &str) -> Option<Line<'_>> {
    let mut parts = text.split(':');
    Some(Line {
        name: parts.next()?,
        uid: parts.nth(1).and_then(id)?,
        gid: parts.next().and_then(id)?,
        home: parts.nth(1)?,
    })
}

/// A user's or group's number; the highest means none.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())?;
    number.filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment\n\
        backup:x:34:35::/var/backups:/usr/sbin/nologin\n\
        broken:x\n\
        homeless:x:7:7:::\n";

    #[test]
    fn who_is_found() {
        let found = |text: &str| {
            let User { uid, gid, home, .. } =
                user(text, PASSWD).map_err(|mistake| mistake.to_string())?;
            Ok(format!("{uid} {gid} {}", home.display()))
        };
        for (text, expected) in [
            ("root", "0 0 /root"),
            ("backup", "34 35 /var/backups"),
            ("34", "34 35 /var/backups"),
            ("34:7", "34 7 /var/backups"),
            ("1000:1001", "1000 1001 /"),
            ("homeless", "7 7 /"),
        ] {
            assert_eq!(found(text), Ok(expected.to_owned()), "{text}");
        }
        for (text, problem) in [
            (
                "backpu",
                "there is no user `backpu` in /etc/passwd; did you mean `backup`?; expected",
            ),
            ("1000", "there is no user `1000` in /etc/passwd; expected"),
            (
                "broken",
                "there is no user `broken` in /etc/passwd; expected",
            ),
            (
                "# a comment",
                "there is no user `# a comment` in /etc/passwd; expected",
            ),
            ("4294967295:0", "`4294967295:0` is no user; expected"),
            ("backup:backup", "`backup:backup` is no user; expected"),
            ("1:2:3", "`1:2:3` is no user; expected"),
            ("+1:2", "`+1:2` is no user; expected"),
        ] {
            let said: Result<String, String> = found(text);
            assert!(
                said.clone().is_err_and(|said| said.starts_with(problem)),
                "{said:?}"
            );
        }
    }
}
