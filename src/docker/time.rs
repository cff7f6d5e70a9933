//! The two forms in which an engine tells the time, read as ns since 1970.

/// Reads a time such as `2026-11-22T12:46:07.123456789+01:00` as ns since 1970; `None` where it is none, or not within 1677 to 2262.
pub(super) fn rfc3339_ns(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let mark = |at: usize, marks: &[u8]| bytes.get(at).is_some_and(|byte| marks.contains(byte));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    let (fraction, zone) = match text.get(19..)?.strip_prefix('.') {
        None => ("", text.get(19..)?),
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
    };
    let zone_s = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let s = number(zone, 1, 3)? * 3600 + number(zone, 4, 6)? * 60;
            if *sign == b'+' { s } else { -s }
        }
        _ => return None,
    };
    let day = days_since_1970(
        number(text, 0, 4)?,
        number(text, 5, 7)?,
        number(text, 8, 10)?,
    )?;
    let clock = clock_s(
        number(text, 11, 13)?,
        number(text, 14, 16)?,
        number(text, 17, 19)?,
    )?;
    let s = day * 86_400 + clock - zone_s;
    // Digits after the ninth are finer than a ns.
    let ns: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    s.checked_mul(1_000_000_000)?.checked_add(ns.parse().ok()?)
}

/// Reads the time of a `Date` header, `Sun, 22 Nov 2026 12:46:07 GMT`, as ns since 1970.
pub(super) fn http_date_ns(text: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (_, date) = text.split_once(", ")?;
    let [day, month, year, clock, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let month = (0..12).find(|at| MONTHS.get(at * 3..at * 3 + 3) == Some(month))? as i64 + 1;
    let day = days_since_1970(number(year, 0, 4)?, month, number(day, 0, 2)?)?;
    let clock = clock_s(
        number(clock, 0, 2)?,
        number(clock, 3, 5)?,
        number(clock, 6, 8)?,
    )?;
    (day * 86_400 + clock).checked_mul(1_000_000_000)
}

/// The digits of `text[from..to]` and nothing else.
fn number(text: &str, from: usize, to: usize) -> Option<i64> {
    let digits = text.get(from..to)?;
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok())?
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The year is let begin in March, so that the leap day is its last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let year = if month <= 2 { year - 1 } else { year };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(year * 365 + leap_days + day_of_year - 719_468)
}

/// Seconds since midnight; a leap second is let pass.
fn clock_s(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour <= 23 && minute <= 59 && second <= 60).then(|| hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_is_read_to_the_nanosecond_with_its_offset() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.999999999Z", Some(-1)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000_000_000)),
            (
                "2026-11-22T13:03:02.496301405Z",
                Some(1_795_352_582_496_301_405),
            ),
            (
                "2026-11-22T14:03:02.496301405+01:00",
                Some(1_795_352_582_496_301_405),
            ),
            (
                "2026-11-22T07:33:02.496301405-05:30",
                Some(1_795_352_582_496_301_405),
            ),
            ("2026-11-22T13:03:02.4Z", Some(1_795_352_582_400_000_000)),
            (
                "2026-11-22T13:03:02.1234567899Z",
                Some(1_795_352_582_123_456_789),
            ),
            ("0001-01-01T00:00:00Z", None),
            ("2026-11-22T13:03:02", None),
            ("2026-11-22T13:03:02.5", None),
            ("2026-13-22T13:03:02Z", None),
            ("2026-11-22T24:03:02Z", None),
            ("+026-11-22T13:03:02Z", None),
            ("2026-11-22T13:03:02+1:00", None),
            ("", None),
            ("käse", None),
        ];
        for (text, ns) in cases {
            assert_eq!(rfc3339_ns(text), ns, "{text}");
        }
    }

    #[test]
    fn a_date_header_is_read() {
        let date = http_date_ns("Sun, 22 Nov 2026 13:03:04 GMT");
        assert_eq!(date, Some(1_795_352_584_000_000_000));
        for text in [
            "Sun, 22 Nov 2026 13:03:04 CET",
            "Sun, 22 ovD 2026 13:03:04 GMT",
            "",
            "x, ",
        ] {
            assert_eq!(http_date_ns(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_the_parsers_down(text in "\\PC{0,40}", bent in "[0-9T:Z.+-]{15,35}") {
            for text in [text, bent] {
                let _ = (rfc3339_ns(&text), http_date_ns(&text));
            }
        }

        /// Held against a count that goes day by day.
        #[test]
        fn days_follow_each_other(years in 0..400i64, month in 1..=12i64) {
            let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let year = 1800 + years;
            let leap = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = lengths[month as usize - 1] + i64::from(leap);
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            let next = days_since_1970(next_year, next_month, 1);
            prop_assert_eq!(days_since_1970(year, month, last).map(|day| day + 1), next);
        }
    }
}
