//! Numbers, as tables and charts show them.

/// A time, with three significant digits.
pub fn shown(millis: f64) -> String {
    if millis < 10.0 {
        format!("{millis:.2}")
    } else if millis < 100.0 {
        format!("{millis:.1}")
    } else {
        format!("{millis:.0}")
    }
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of instructions in millions.
pub fn millions(instructions: u64) -> f64 {
    instructions as f64 / 1e6
}
