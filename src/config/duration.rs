//! Durations as Go writes them: `2m0s`, `1.5h`, `500ms`.

use std::time::Duration;

use super::Mistake;

/// What is expected wherever a duration is.
pub const EXPECTED: &str = "a duration such as `2m0s`, `1.5h` or `500ms`";

/// Reads a duration: numbers, each with a fraction or not, each with a unit of `ns`, `us`, `µs`, `ms`, `s`, `m` and `h`; `0` needs none. What is below
/// a nanosecond is cut off, more than 292 years (what Go can hold) are refused.
pub fn parse(text: &str) -> Result<Duration, Mistake> {
    let mistake = |problem: String| {
        Mistake::new(
            format!("`{}` is no duration: {problem}", super::cut(text)),
            EXPECTED,
        )
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(mistake("it is empty".to_owned()));
    }
    if text.starts_with(['-', '+']) {
        return Err(mistake("it has a sign".to_owned()));
    }
    let mut total_ns: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(mistake(format!(
                "a number is missing before `{}`",
                super::cut(rest)
            )));
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit_ns = unit_ns(unit).map_err(mistake)?;
        total_ns = nanoseconds(whole, fraction, unit_ns)
            .and_then(|part_ns| total_ns.checked_add(part_ns))
            .filter(|sum_ns| *sum_ns <= i64::MAX as u64)
            .ok_or_else(|| mistake("it is longer than 292 years".to_owned()))?;
        rest = after;
    }
    Ok(Duration::from_nanos(total_ns))
}

/// Reads a duration of at least this.
pub fn parse_at_least(text: &str, least: Duration) -> Result<Duration, Mistake> {
    let duration = parse(text)?;
    if duration < least {
        let problem = format!("`{}` is less than {least:?}", super::cut(text));
        return Err(Mistake::new(problem, EXPECTED));
    }
    Ok(duration)
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn unit_ns(unit: &str) -> Result<u64, String> {
    match unit {
        "ns" => Ok(1),
        // Both signs that look like a micro: U+00B5 and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => Ok(1_000),
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(60_000_000_000),
        "h" => Ok(3_600_000_000_000),
        "" => Err("a unit is missing (ns, us, ms, s, m, h)".to_owned()),
        other => Err(format!(
            "`{}` is no unit (ns, us, ms, s, m, h are)",
            super::cut(other)
        )),
    }
}

fn nanoseconds(whole: &str, fraction: &str, unit_ns: u64) -> Option<u64> {
    let whole_ns = match whole {
        "" => 0,
        whole => whole.parse::<u64>().ok()?.checked_mul(unit_ns)?,
    };
    // 17 digits say more than the largest unit has nanoseconds, and fit.
    let fraction = &fraction[..fraction.len().min(17)];
    let parts = match fraction {
        "" => 0,
        fraction => fraction.parse::<u128>().ok()?,
    };
    let fraction_ns = parts * u128::from(unit_ns) / 10_u128.pow(fraction.len() as u32);
    whole_ns.checked_add(u64::try_from(fraction_ns).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_s_forms() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("2m0s", 120_000_000_000),
            ("2m", 120_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("500ms", 500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("3μs", 3_000),
            ("7ns", 7),
            ("1.9ns", 1),
            ("1h2m3.004s", 3_723_004_000_000),
            ("0.3333333333333333333333h", 1_199_999_999_999),
            ("2562047h47m16.854775807s", i64::MAX as u64),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                Duration::from_nanos(nanoseconds),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, problem) in [
            ("", "`` is no duration: it is empty"),
            (
                "60",
                "`60` is no duration: a unit is missing (ns, us, ms, s, m, h)",
            ),
            ("-1s", "`-1s` is no duration: it has a sign"),
            ("+1s", "`+1s` is no duration: it has a sign"),
            (
                "1d",
                "`1d` is no duration: `d` is no unit (ns, us, ms, s, m, h are)",
            ),
            (
                "1M",
                "`1M` is no duration: `M` is no unit (ns, us, ms, s, m, h are)",
            ),
            (
                "1 s",
                "`1 s` is no duration: ` s` is no unit (ns, us, ms, s, m, h are)",
            ),
            ("s", "`s` is no duration: a number is missing before `s`"),
            (".s", "`.s` is no duration: a number is missing before `.s`"),
            (
                "2562047h47m16.854775808s",
                "`2562047h47m16.854775808s` is no duration: it is longer than 292 years",
            ),
            (
                "99999999999999999999s",
                "`99999999999999999999s` is no duration: it is longer than 292 years",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().problem, problem);
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([0-9]{0,25}(\\.[0-9]{0,25})?(ns|us|µs|ms|s|m|h|d|\\PC)?){0,4}") {
            let _ = parse(&text);
        }

        #[test]
        fn sums_are_sums(h in 0u64..1000, m in 0u64..1000, ms in 0u64..100_000) {
            let expected = Duration::from_millis(h * 3_600_000 + m * 60_000 + ms);
            prop_assert_eq!(parse(&format!("{h}h{m}m{ms}ms")).unwrap(), expected);
        }
    }
}
