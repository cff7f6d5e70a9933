//! Signals by name and number, as Linux counts them: events and inspects have both forms.

/// Their names without `SIG`, from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first and the last real-time signal, as the C library tells them.
const REAL_TIME: (u8, u8) = (34, 64);

/// The number of a signal: `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`, in any case.
pub fn signal_number(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<u8>() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<u8>().ok(),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let number = REAL_TIME.0.checked_add(offset(rest, '+')?)?;
        return (number <= REAL_TIME.1).then_some(number);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let number = REAL_TIME.1.checked_sub(offset(rest, '-')?)?;
        return (number >= REAL_TIME.0).then_some(number);
    }
    let name = match name {
        "IOT" => "ABRT",
        "POLL" => "IO",
        "CLD" => "CHLD",
        name => name,
    };
    let place = NAMES.iter().position(|known| *known == name)?;
    Some(place as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_by_name_and_by_number() {
        for (text, number) in [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("SIGQUIT", Some(3)),
            ("SIGWINCH", Some(28)),
            ("SYS", Some(31)),
            ("SIGIOT", Some(6)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("999", None),
            ("", None),
            ("SIG", None),
            ("RTMIN+99", None),
            ("RTMIN-1", None),
            ("label", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
