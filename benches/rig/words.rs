//! The words on a bench's command line.

use anyhow::{Context, Result, bail};

/// Goes through the options. `take` is given each and, where it asks for it, the value behind it;
/// `false` says that there is no such option.
pub(crate) fn read(
    bench: &str,
    mut take: impl FnMut(&str, &mut dyn FnMut() -> Result<String>) -> Result<bool>,
) -> Result<()> {
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        // Cargo says this to every bench.
        if word == "--bench" {
            continue;
        }
        let mut value = || {
            let next = words.next();
            next.with_context(|| format!("{word} needs a value"))
        };
        if !take(&word, &mut value)? {
            bail!("no option {word}; the head of benches/{bench}.rs lists them");
        }
    }
    Ok(())
}
