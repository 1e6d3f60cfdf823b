//! What a command shows: results on standard output, all else on standard error.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::{Failure, FailureKind, Result};

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people; may change from version to version
    Table,
    /// One document per command, for scripts; fields are added, never changed
    Json,
}

/// Shows `document`: itself, or the text `table` makes of it.
pub(crate) fn show<T: Serialize>(
    format: Format,
    document: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    match format {
        Format::Table => line(&table(document)),
        Format::Json => {
            let text = serde_json::to_string_pretty(document)
                .map_err(|error| Failure::failed(format!("write JSON: {error}")))?;
            line(&text)
        }
    }
}

/// Writes `text` and a line end to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    lines([text.as_bytes()])
}

/// Writes lines to standard output and sees them out of this process.
pub(crate) fn lines<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let write = || {
        for line in lines {
            out.write_all(line.as_ref())?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(|error| Failure::of_output(&error))
}

/// Says something about the work, on standard error.
pub(crate) fn note(text: &str) {
    // There is nobody to tell when even this cannot be written.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Says why the command did not do what it was asked.
pub(crate) fn complain(failure: &Failure) {
    if failure.kind() != FailureKind::Closed {
        note(&format!("tidegate: {failure}"));
    }
}

/// Asks a person, unless `yes` was said already. Fails when there is nobody to
/// ask; `Ok(false)` is a person's no.
pub(crate) fn confirm(question: &str, yes: bool, format: Format) -> Result<bool> {
    ask(question, (yes, "--yes"), format)
}

/// As [`confirm`], answered by a flag of this name.
pub(crate) fn ask(question: &str, (yes, flag): (bool, &str), format: Format) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if format == Format::Json || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is here to ask: add {flag} if so")));
    }
    let mut err = std::io::stderr();
    drop(write!(err, "{question} [y/N] "));
    drop(err.flush());
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("read the answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
