//! Waiting for a condition, with a deadline and a word for what is missing.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Looks every 200 ms until `look` gives something, and says how long that took. `look`'s text says what is still missing.
///
/// # Errors
/// After `limit`, with the last text.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T> {
    let started = Instant::now();
    loop {
        let missing = match look() {
            Ok(found) => {
                println!("      {what}: after {:.1} s", started.elapsed().as_secs_f64());
                return Ok(found);
            }
            Err(missing) => missing,
        };
        if started.elapsed() > limit {
            bail!("{what}: not within {limit:?}: {missing}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
