//! Pushes as many bytes as its argument says, and copies its input to its output.

use demo::Ring;

fn main() -> std::process::ExitCode {
    let count: u8 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut ring = Ring::new(16);
    (0..count).for_each(|byte| ring.push(byte));
    std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).expect("the input can be copied");
    std::process::ExitCode::from(count)
}
